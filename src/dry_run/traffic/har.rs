//! HTTP archives (HAR 1.2): one JSON document. Its entries are read one after the other and passed on as traffic lines,
//! so that an archive of any length needs the memory of one entry.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::combined::absolute;

/// Gives each entry as a traffic line; stops with the first `Err` of `each`.
///
/// # Errors
/// It is no archive, or `each` wants no more.
pub fn entries(input: impl Read, each: &mut dyn FnMut(String) -> Result<(), String>) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_reader(std::io::BufReader::new(input));
    let found =
        Keyed { key: "log", inner: Keyed { key: "entries", inner: Each(each) } }.deserialize(&mut deserializer)?;
    match found {
        Some(Some(())) => deserializer.end(),
        _ => Err(serde_json::Error::custom("not an HTTP archive: there is no `log.entries`")),
    }
}

/// The parts of an entry that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    started_date_time: Option<String>,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    value: String,
}

impl Entry {
    fn line(self) -> String {
        let (scheme, host, path) = absolute(&self.request.url);
        let mut headers: Map<String, Value> = Map::new();
        for Pair { name, value } in self.request.headers {
            // HTTP/2's own fields stand among the others.
            if !name.starts_with(':') {
                let list = headers.entry(name.to_ascii_lowercase()).or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    list.push(value.into());
                }
            }
        }
        let line = json!({
            "ts": self.started_date_time,
            "method": self.request.method,
            "scheme": scheme,
            "host": host.unwrap_or(""),
            "path": path,
            "headers": headers,
        });
        line.to_string()
    }
}

/// The value of one key of a map; the others are skipped.
struct Keyed<S> {
    key: &'static str,
    inner: S,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Keyed<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Keyed<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with `{}`", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut inner, mut found) = (Some(self.inner), None);
        while let Some(key) = map.next_key::<String>()? {
            match if key == self.key { inner.take() } else { None } {
                Some(seed) => found = Some(map.next_value_seed(seed)?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

struct Each<'e>(&'e mut dyn FnMut(String) -> Result<(), String>);

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(entry) = list.next_element::<Entry>()? {
            (self.0)(entry.line()).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dry_run::traffic::Format;

    fn lines(text: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut each = |line| {
            found.push(line);
            Ok(())
        };
        entries(text.as_bytes(), &mut each).map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn entries_become_traffic_lines() {
        let text = r#"{"log": {"version": "1.2", "creator": {}, "entries": [
            {"startedDateTime": "2026-11-22T10:00:00Z", "time": 3, "response": {"content": {"text": "x"}},
             "request": {"method": "GET", "url": "https://shop.example.com/cart?x=1#top", "headers": [
                {"name": ":authority", "value": "shop.example.com"}, {"name": "X-Lane", "value": "a"}, {"name": "x-lane", "value": "b"}]}}
        ], "pages": []}}"#;
        let lines = lines(text).unwrap();
        let request = Format::Har.read(&lines[0], "x").unwrap().request;
        assert_eq!(
            (request.scheme.as_str(), request.host.as_str(), request.path.as_str()),
            ("https", "shop.example.com", "/cart")
        );
        assert_eq!(request.headers.get_all("x-lane").iter().count(), 2);
        assert_eq!(request.headers.len(), 2);
    }

    #[test]
    fn what_is_no_archive_is_said() {
        for text in ["{}", r#"{"log": {}}"#, r#"{"log": {"entries": [{}]}}"#, "[", r#"{"log": {"entries": []}} x"#] {
            assert!(lines(text).is_err(), "{text}");
        }
        assert_eq!(lines(r#"{"log": {"entries": []}}"#).unwrap().len(), 0);
    }
}
