//! The traffic line (CLI.md): one request as JSON. The access log writes such lines; the dry run reads them.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::paths::Paths;
use crate::engine::request::RequestView;
use crate::engine::route::{host, path};
use crate::engine::time::Draw;

/// A traffic line as written. Fields it does not know are kept. The default one asks nobody: it has no host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficLine {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    /// As sent; default GET.
    #[serde(default = "get")]
    pub method: String,
    /// As sent.
    #[serde(default)]
    pub host: String,
    /// Path and query.
    #[serde(default = "root")]
    pub path: String,
    /// `http` or `https`; default http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// A value is a string or a list of strings.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// The client's address; default 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The trusted proxy that sent it for the client; default the client itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// The TLS handshake's server name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The client certificate's names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub san: Vec<String>,
    /// The request's luck, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// It is not such a JSON object.
    #[error("not a traffic line: {0}")]
    Json(#[from] serde_json::Error),
    /// The method is none.
    #[error("`{0}` is not a method")]
    Method(String),
    /// A header cannot be sent.
    #[error("the header `{0}` must be a string or a list of strings that HTTP can carry")]
    Header(String),
    /// The URL is none.
    #[error("`{0}` is not a URL: {1}")]
    Url(String, String),
    /// The host is none.
    #[error("`{0}` is not a host")]
    Host(String),
    /// The path cannot be requested.
    #[error("`{path}`: {why}")]
    Path {
        /// As written.
        path: String,
        /// What is wrong with it.
        why: path::PathError,
    },
    /// The draw is no hexadecimal number.
    #[error("`{0}` is not a draw: 16 hexadecimal digits")]
    Draw(String),
}

/// An owned request, normalised as `forward` does it.
#[derive(Clone, Debug)]
pub struct TrafficRequest {
    /// As sent.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: String,
    /// Lower case, no port, no trailing dot.
    pub host: String,
    /// Normalised.
    pub path: String,
    /// Without `?`.
    pub query: Option<String>,
    /// In written order within a name.
    pub headers: HeaderMap,
    /// IPv4-mapped addresses unmapped.
    pub client: IpAddr,
    /// Who sent it for the client; `None`: the client itself.
    pub peer: Option<IpAddr>,
    /// The TLS handshake's server name.
    pub sni: Option<String>,
    /// The client certificate's names.
    pub san: Vec<String>,
    /// The luck that the line names.
    pub draw: Option<Draw>,
}

impl Default for TrafficLine {
    fn default() -> Self {
        Self {
            ts: None,
            method: get(),
            host: String::new(),
            path: root(),
            scheme: None,
            headers: Map::new(),
            client: None,
            peer: None,
            sni: None,
            san: Vec::new(),
            draw: None,
            rest: Map::new(),
        }
    }
}

impl TrafficLine {
    /// Reads one line.
    ///
    /// # Errors
    /// Not a JSON object with fields of the right types.
    pub fn parse(line: &str) -> Result<Self, TrafficError> {
        Ok(serde_json::from_str(line)?)
    }

    /// A request for a URL; without a scheme it is http, and one that begins with `/` names no host.
    ///
    /// # Errors
    /// It is no URL.
    pub fn of_url(method: &str, url: &str) -> Result<Self, TrafficError> {
        let whole = if url.contains("://") || url.starts_with('/') { url.to_owned() } else { format!("http://{url}") };
        let uri: http::Uri = whole
            .parse()
            .map_err(|error: http::uri::InvalidUri| TrafficError::Url(url.to_owned(), error.to_string()))?;
        Ok(Self {
            method: method.to_owned(),
            host: uri.authority().map_or_else(String::new, |authority| authority.as_str().to_owned()),
            path: uri.path_and_query().map_or_else(root, |target| target.as_str().to_owned()),
            scheme: uri.scheme_str().map(Into::into),
            ..Self::default()
        })
    }

    /// A TLS client's greeting that asks for `name` (SNI; empty, or an address: it asks for nobody), as a listener that passes
    /// bytes on decides it: a `CONNECT` of that name.
    #[must_use]
    pub fn of_greeting(name: &str) -> Self {
        let name = if name.parse::<IpAddr>().is_ok() { "" } else { name.trim_end_matches('.') }.to_ascii_lowercase();
        let sni = Some(name.clone()).filter(|name| !name.is_empty());
        Self { method: "CONNECT".into(), host: name, scheme: Some("https".into()), sni, ..Self::default() }
    }

    /// The line, without a line feed.
    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("strings, lists and maps with string keys can be written")
    }

    /// The request it describes.
    ///
    /// # Errors
    /// What `forward` would answer with 400, and what HTTP cannot carry.
    pub fn request(&self) -> Result<TrafficRequest, TrafficError> {
        self.request_by(&Paths::default())
    }

    /// As [`Self::request`], its path read as `paths` says.
    ///
    /// # Errors
    /// As there.
    pub fn request_by(&self, paths: &Paths) -> Result<TrafficRequest, TrafficError> {
        let (raw, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (self.path.as_str(), None),
        };
        let path = paths.normalise(raw).map_err(|why| TrafficError::Path { path: self.path.clone(), why })?;
        let draw = |text: &String| parse_draw(text).ok_or_else(|| TrafficError::Draw(text.clone()));
        let method: Method = self.method.parse().map_err(|_| TrafficError::Method(self.method.clone()))?;
        Ok(TrafficRequest {
            host: asked_host(&method, &self.host)?.into_owned(),
            method,
            scheme: self.scheme.clone().unwrap_or_else(|| "http".into()),
            path: path.into_owned(),
            query,
            headers: headers(&self.headers)?,
            client: self.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical(),
            peer: self.peer.map(|peer| peer.to_canonical()),
            sni: self.sni.clone(),
            san: self.san.clone(),
            draw: self.draw.as_ref().map(draw).transpose()?,
        })
    }
}

impl TrafficRequest {
    /// Who sent it: control headers are judged by this address.
    #[must_use]
    pub fn sender(&self) -> IpAddr {
        self.peer.unwrap_or(self.client)
    }

    /// As the rules see it. `trusted`: whether its peer may send control headers.
    #[must_use]
    pub fn view(&self, trusted: bool) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            scheme: &self.scheme,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            client: self.client,
            sni: self.sni.as_deref(),
            san: &self.san,
            trusted,
        }
    }
}

/// The host as rules see it. A connection that is passed on (`CONNECT`) may ask for nobody; a request names a host.
///
/// # Errors
/// It is no host.
pub fn asked_host<'h>(method: &Method, host: &'h str) -> Result<Cow<'h, str>, TrafficError> {
    if host.is_empty() && method == Method::CONNECT {
        return Ok(Cow::Borrowed(""));
    }
    host::normalise(host).map_err(|_| TrafficError::Host(host.to_owned()))
}

/// A draw from its hexadecimal form; fewer digits are a smaller number.
#[must_use]
pub fn parse_draw(text: &str) -> Option<Draw> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let sound = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| u64::from_str_radix(digits, 16).ok().map(Draw)).flatten()
}

/// The form that logs, debug headers and `--draw` use.
#[must_use]
pub fn shown_draw(draw: Draw) -> String {
    format!("{:016x}", draw.0)
}

fn headers(written: &Map<String, Value>) -> Result<HeaderMap, TrafficError> {
    let mut headers = HeaderMap::with_capacity(written.len());
    for (key, value) in written {
        let bad = || TrafficError::Header(key.clone());
        let name = HeaderName::try_from(key.as_str()).map_err(|_| bad())?;
        let values = match value {
            Value::String(one) => vec![one],
            Value::Array(list) => list
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(bad()),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(bad()),
        };
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?);
        }
    }
    Ok(headers)
}

fn get() -> String {
    "GET".into()
}

fn root() -> String {
    "/".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"2026-11-22T10:00:00Z","method":"POST","host":"Shop.Example.com:80","path":"/a/../cart?x=1","headers":{"X-User-Group":"test","accept":["a","b"]},"client":"::ffff:10.1.2.3","draw":"00000000000000ff","took":12}"#;

    #[test]
    fn a_line_becomes_a_request_as_the_proxy_would_see_it() {
        let line = TrafficLine::parse(LINE).unwrap();
        let request = line.request().unwrap();
        let view = request.view(true);
        assert_eq!((view.host, view.path, view.query), ("shop.example.com", "/cart", Some("x=1")));
        assert_eq!(view.headers["x-user-group"], "test");
        assert_eq!(view.headers.get_all("accept").iter().count(), 2);
        assert_eq!((view.client.to_string().as_str(), request.draw), ("10.1.2.3", Some(Draw(255))));
        assert_eq!(shown_draw(Draw(255)), "00000000000000ff");
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let line = TrafficLine::parse(LINE).unwrap();
        assert_eq!(line.rest["took"], 12);
        assert_eq!(TrafficLine::parse(&line.write()).unwrap(), line);
    }

    #[test]
    fn what_cannot_be_a_request_is_refused() {
        for line in [
            "[]",
            r#"{"method":"GE T","host":"a"}"#,
            r#"{"host":"a b"}"#,
            r#"{"host":"a","path":"a"}"#,
            r#"{"host":"a","path":"/%2f"}"#,
            r#"{"host":"a","headers":{"x":1}}"#,
            r#"{"host":"a","headers":{"x y":"1"}}"#,
            r#"{"host":"a","headers":{"x":"1\n"}}"#,
            r#"{"host":"a","client":"nowhere"}"#,
            r#"{"host":"a","draw":"xyz"}"#,
        ] {
            let read = TrafficLine::parse(line).and_then(|line| line.request());
            assert!(read.is_err(), "{line}");
        }
    }
}
