//! What a traffic file was written by, from its beginning.

use serde_json::{Map, Value};

use super::{Format, envoy};

/// The format of a file that begins like this: that of the first line that one of them can read, so that a torn or
/// foreign line in front is a bad line of its own. When none can be read, the first character says; an empty file is one
/// of traffic lines.
#[must_use]
pub fn detect(beginning: &[u8]) -> Format {
    let text = String::from_utf8_lossy(beginning);
    let text = text.trim_start();
    if is_archive(text) {
        return Format::Har;
    }
    let first = if text.is_empty() || text.starts_with('{') { Format::Traffic } else { Format::Combined };
    text.lines().find_map(of_line).unwrap_or(first)
}

/// An archive is one document, over as many lines as it likes.
fn is_archive(text: &str) -> bool {
    let rest = text.strip_prefix('{').and_then(|rest| rest.trim_start().strip_prefix("\"log\""));
    if rest.is_some_and(|rest| rest.trim_start().starts_with(':')) {
        return true;
    }
    let fields = serde_json::from_str::<Map<String, Value>>(text.lines().next().unwrap_or_default());
    fields.is_ok_and(|fields| fields.get("log").is_some_and(Value::is_object))
}

/// The format that reads a line.
fn of_line(line: &str) -> Option<Format> {
    let line = line.trim();
    if !line.starts_with('{') {
        return Format::Combined.read(line, ANY_HOST).ok().map(|_| Format::Combined);
    }
    let fields = serde_json::from_str::<Map<String, Value>>(line).ok()?;
    let marked = |mark: &&str| fields.keys().any(|key| key.eq_ignore_ascii_case(mark));
    let format = if envoy::MARKS.iter().any(marked) { Format::Envoy } else { Format::Traffic };
    (format == Format::Envoy || format.read(line, ANY_HOST).is_ok()).then_some(format)
}

/// For lines that do not name their host.
const ANY_HOST: &str = "localhost";

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
            ("garbage\n{\"host\":\"a\",\"path\":\"/\"}\n", Format::Traffic),
            ("st\",\"path\":\"/\"}\n{\"method\":\"GET\",\"path\":\"/\",\"authority\":\"a\"}\n", Format::Envoy),
            ("{torn\n1.1.1.1 - - [x] \"GET / HTTP/1.1\" 200 1\n", Format::Combined),
            ("garbage\nand more\n", Format::Combined),
        ] {
            assert_eq!(detect(text.as_bytes()), format, "{text}");
        }
    }
}
