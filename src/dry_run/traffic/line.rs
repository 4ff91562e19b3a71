//! Traffic lines, read fast: the same as `engine::format::traffic` says, but without a map of what is not needed.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Captured;
use crate::engine::format::traffic::{TrafficError, TrafficRequest, asked_host, parse_draw};
use crate::engine::route::path;

/// The parts of a line that matter here.
#[derive(Deserialize)]
struct Line<'l> {
    #[serde(borrow, default = "get")]
    method: Cow<'l, str>,
    #[serde(borrow, default)]
    host: Cow<'l, str>,
    #[serde(borrow, default = "root")]
    path: Cow<'l, str>,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    peer: Option<IpAddr>,
    #[serde(default)]
    sni: Option<String>,
    #[serde(default)]
    san: Vec<String>,
    #[serde(default)]
    draw: Option<String>,
    #[serde(default)]
    redacted: Vec<String>,
}

/// Reads one traffic line. `fallback` is the host of a line without one. The error is a sentence.
pub fn read(line: &str, fallback: &str) -> Result<Captured, String> {
    // A list would do for a structure, each element a field.
    if !line.starts_with('{') {
        return Err("not a traffic line: it is not a JSON object".to_owned());
    }
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| TrafficError::Json(error).to_string())?;
    captured(line, fallback).map_err(|error| error.to_string())
}

fn captured(line: Line<'_>, fallback: &str) -> Result<Captured, TrafficError> {
    let draw = |text: &String| parse_draw(text).ok_or_else(|| TrafficError::Draw(text.clone()));
    let client = match &line.client {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(_) if line.redacted.iter().any(|field| field == "client") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text
            .parse::<IpAddr>()
            .map_err(|_| TrafficError::Json(serde_json::Error::custom(format!("`{text}` is not an IP address"))))?
            .to_canonical(),
    };
    let named = !line.host.is_empty() || line.method == "CONNECT";
    let mut request = request(&line.method, if named { &line.host } else { fallback }, &line.path)?;
    request.scheme = line.scheme.unwrap_or(request.scheme);
    request.headers = line.headers.0;
    request.client = client;
    request.peer = line.peer.map(|peer| peer.to_canonical());
    request.sni = line.sni;
    request.san = line.san;
    request.draw = line.draw.as_ref().map(draw).transpose()?;
    Ok(Captured { request, redacted: line.redacted })
}

/// A plain request, normalised as `forward` does it.
pub(super) fn request(method: &str, host: &str, target: &str) -> Result<TrafficRequest, TrafficError> {
    let (raw, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let path = path::normalise(raw).map_err(|why| TrafficError::Path { path: target.to_owned(), why })?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| TrafficError::Method(method.to_owned()))?;
    Ok(TrafficRequest {
        host: asked_host(&method, host)?.into_owned(),
        method,
        scheme: "http".into(),
        path: path.into_owned(),
        query,
        headers: HeaderMap::new(),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: None,
        sni: None,
        san: Vec::new(),
        draw: None,
    })
}

fn get<'l>() -> Cow<'l, str> {
    Cow::Borrowed("GET")
}

fn root<'l>() -> Cow<'l, str> {
    Cow::Borrowed("/")
}

/// A map of fields straight into the type that the engine reads.
#[derive(Default)]
struct Headers(HeaderMap);

/// A string that is borrowed from the line where it has no escapes.
#[derive(Deserialize)]
struct Word<'l>(#[serde(borrow)] Cow<'l, str>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of header fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = HeaderMap::with_capacity(map.size_hint().unwrap_or(4));
        while let Some(Word(name)) = map.next_key()? {
            let bad = || A::Error::custom(TrafficError::Header(name.clone().into_owned()));
            let parsed = HeaderName::try_from(&*name).map_err(|_| bad())?;
            map.next_value_seed(Values { name: parsed, into: &mut headers })?;
        }
        Ok(Headers(headers))
    }
}

/// A string, or a list of them.
struct Values<'h> {
    name: HeaderName,
    into: &'h mut HeaderMap,
}

impl Values<'_> {
    fn add<E: serde::de::Error>(&mut self, value: &str) -> Result<(), E> {
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| E::custom(TrafficError::Header(self.name.to_string())))?;
        self.into.append(self.name.clone(), value);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string or a list of strings for the header `{}`", self.name)
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> Result<(), E> {
        self.add(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(Word(value)) = list.next_element()? {
            self.add(&value)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Err(A::Error::custom(TrafficError::Header(self.name.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::format::traffic::TrafficLine;
    use crate::engine::time::Draw;

    #[test]
    fn it_reads_what_the_format_says() {
        for text in [
            r#"{"ts":"2026-11-22T10:00:00Z","method":"POST","host":"Shop.Example.com:80","path":"/a/../cart?x=1","headers":{"X-User-Group":"te\"st","accept":["a","b"]},"client":"::ffff:10.1.2.3","draw":"00000000000000ff","result":{"status":200}}"#,
            r#"{"host":"a"}"#,
            r#"{"host":"a","sni":null,"san":["x"],"scheme":"https"}"#,
        ] {
            let (ours, theirs) =
                (read(text, "x").unwrap().request, TrafficLine::parse(text).unwrap().request().unwrap());
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        }
        for text in [
            "[]",
            r#"{"method":"GE T","host":"a"}"#,
            r#"{"host":"a b"}"#,
            r#"{"host":"a","path":"/%2f"}"#,
            r#"{"host":"a","headers":{"x":1}}"#,
            r#"{"host":"a","headers":{"x":{}}}"#,
            r#"{"host":"a","headers":{"x y":"1"}}"#,
            r#"{"host":"a","headers":{"x":"1\n"}}"#,
            r#"{"host":"a","client":"nowhere"}"#,
            r#"{"host":"a","draw":"xyz"}"#,
        ] {
            assert!(read(text, "x").is_err(), "{text}");
        }
    }

    #[test]
    fn a_redacted_client_is_no_error_and_a_missing_host_is_the_given_one() {
        let captured = read(r#"{"client":"hash-12","redacted":["client"],"draw":"ff"}"#, "shop").unwrap();
        assert_eq!((captured.request.host.as_str(), captured.request.draw), ("shop", Some(Draw(255))));
        assert_eq!(captured.redacted, ["client"]);
    }
}
