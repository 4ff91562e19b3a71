//! What a traffic file was written by, from its beginning.

use serde_json::{Map, Value};

use super::{Format, envoy};

/// The format of a file that begins like this. Blank lines in front do not count; an empty file is one of traffic lines.
#[must_use]
pub fn detect(beginning: &[u8]) -> Format {
    let text = String::from_utf8_lossy(beginning);
    let text = text.trim_start();
    if text.is_empty() {
        return Format::Traffic;
    }
    if !text.starts_with('{') {
        return Format::Combined;
    }
    let line = text.lines().next().unwrap_or_default();
    match serde_json::from_str::<Map<String, Value>>(line) {
        Ok(fields) if fields.get("log").is_some_and(Value::is_object) => Format::Har,
        Ok(fields) => {
            let marked = |mark: &&str| fields.keys().any(|key| key.eq_ignore_ascii_case(mark));
            if envoy::MARKS.iter().any(marked) { Format::Envoy } else { Format::Traffic }
        }
        // A document over several lines, or a first line that is longer than what was looked at.
        Err(_) => {
            let rest = text[1..].trim_start();
            if rest.strip_prefix("\"log\"").is_some_and(|rest| rest.trim_start().starts_with(':')) {
                Format::Har
            } else {
                Format::Traffic
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_beginning() {
        for (text, format) in [
            ("", Format::Traffic),
            ("\n{\"host\":\"a\",\"path\":\"/\"}\n", Format::Traffic),
            ("{\"method\":\"GET\",\"path\":\"/\",\"authority\":\"a\"}\n", Format::Envoy),
            ("{\":AUTHORITY\":\"a\"}\n", Format::Envoy),
            ("{\n  \"log\": {\n", Format::Har),
            ("{\"log\":{\"entries\":[]}}", Format::Har),
            ("{broken", Format::Traffic),
            ("1.1.1.1 - - [x] \"GET / HTTP/1.1\" 200 1", Format::Combined),
        ] {
            assert_eq!(detect(text.as_bytes()), format, "{text}");
        }
    }
}
