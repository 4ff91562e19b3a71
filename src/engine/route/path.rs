//! The request path as the rules see it.

use std::borrow::Cow;

/// Why a path cannot be used; `forward` answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has a % that is not followed by two hexadecimal digits")]
    BadEscape,
    /// `%2f`, `%5c` or a backslash: proxies and servers disagree on what they separate.
    #[error("the path has an encoded slash or a backslash")]
    EncodedSlash,
    /// A control character, raw or encoded.
    #[error("the path has a control character")]
    Control,
}

/// Removes dot segments and repeated slashes, decodes escapes of unreserved characters (RFC 3986, 6.2.2) and writes the
/// others in upper case. Borrowed when the path is normal already. A trailing slash stays.
///
/// # Errors
/// What proxies and servers could read differently.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    Ok(Cow::Owned(remove_dots(&decoded)))
}

/// One pass without branches on the rare: letters, digits and the usual marks, no `//`, no segment that starts with a dot.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0u8;
    for &byte in path {
        let plain = !matches!(byte, b'%' | b'\\' | 0..=0x1f | 0x7f);
        if !plain || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

fn decode(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => return Err(PathError::EncodedSlash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(PathError::BadEscape) };
                let value = hex(*high).zip(hex(*low)).map(|(h, l)| h * 16 + l).ok_or(PathError::BadEscape)?;
                rest = tail;
                match value {
                    b'/' | b'\\' => return Err(PathError::EncodedSlash),
                    0..=0x1f | 0x7f => return Err(PathError::Control),
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(value),
                    _ => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
            }
            _ => out.push(byte),
        }
    }
    Ok(out)
}

fn remove_dots(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut out = String::with_capacity(text.len());
    let mut open = false;
    for segment in text.split('/').skip(1) {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if open || out.is_empty() {
        out.push('/');
    }
    out
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &str) {
        assert_eq!(normalise(path).as_deref(), Ok(expected), "{path}");
    }

    #[test]
    fn normal_paths_are_borrowed() {
        for path in ["/", "/a", "/a/", "/a/b.c/~x;p=1,@:$&'()*+!", "/a..b/c."] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn dots_slashes_and_unreserved_escapes_are_resolved() {
        check("//a///b", "/a/b");
        check("/a/./b/../c", "/a/c");
        check("/a/..", "/");
        check("/../../a", "/a");
        check("/a/.", "/a/");
        check("/a/b/..", "/a/");
        check("/a//", "/a/");
        check("/%61%2e%2E/x", "/a../x");
        check("/%2e%2e/x", "/x");
        check("/a%c3%a9%20b", "/a%C3%A9%20b");
        check("/.well-known/x", "/.well-known/x");
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for (path, error) in [
            ("a", PathError::NotAbsolute),
            ("", PathError::NotAbsolute),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a%5Cb", PathError::EncodedSlash),
            ("/a\\b", PathError::EncodedSlash),
            ("/a%00", PathError::Control),
            ("/a\u{1}", PathError::Control),
            ("/a%7f", PathError::Control),
            ("/a%", PathError::BadEscape),
            ("/a%2", PathError::BadEscape),
            ("/a%zz", PathError::BadEscape),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[a./%2-5eEfF~é]{0,24}") {
            if let Ok(once) = normalise(&path) {
                let twice = normalise(&once).expect("a normal path is accepted");
                proptest::prop_assert_eq!(&once, &twice);
                proptest::prop_assert!(!once.contains("//") && !once.split('/').any(|s| s == "." || s == ".."));
            }
        }
    }
}
