//! The request path as the rules see it.

use std::borrow::Cow;

use crate::engine::paths::{Paths, Spellings};

/// Why a path cannot be used; `forward` answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has a % that is not followed by two hexadecimal digits")]
    BadEscape,
    /// `%2f`: proxies and servers disagree on whether it separates.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// A backslash, raw or encoded: the same.
    #[error("the path has a backslash")]
    Backslash,
    /// A control character, raw or encoded.
    #[error("the path has a control character")]
    Control,
    /// A dot segment with a parameter, `..;x`.
    #[error("the path has a dot segment with a parameter")]
    DotParameter,
    /// A parameter, or an escaped semicolon that could begin one, where those are refused.
    #[error("the path has a parameter (`;`)")]
    Parameter,
    /// A dot segment where those are refused.
    #[error("the path has a dot segment")]
    DotSegment,
}

/// As [`Paths::normalise`] with the default settings.
///
/// # Errors
/// What proxies and servers could read differently.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    Paths::default().normalise(path)
}

impl Paths {
    /// Removes dot segments (RFC 3986, 5.2.4) and repeated slashes, decodes escapes of unreserved characters (6.2.2),
    /// writes the others in upper case, and escapes what a path cannot hold. Borrowed when the path is normal already.
    /// A trailing slash stays. Normalising twice changes nothing.
    ///
    /// # Errors
    /// What the settings refuse; always a raw control character, and a path that does not begin with a slash.
    pub fn normalise<'p>(&self, path: &'p str) -> Result<Cow<'p, str>, PathError> {
        if !path.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        // Before anything is resolved: `/a;x/..` has a parameter too, and a server may cut it first.
        if self.refuse.has(Spellings::PARAMETER) && has_semicolon(path.as_bytes()) {
            return Err(PathError::Parameter);
        }
        if is_normal(path.as_bytes()) {
            return Ok(Cow::Borrowed(path));
        }
        let decoded = self.decode(path.as_bytes())?;
        self.resolve(&decoded).map(Cow::Owned)
    }

    fn unless_refused(&self, spelling: Spellings, error: PathError) -> Result<(), PathError> {
        if self.refuse.has(spelling) { Err(error) } else { Ok(()) }
    }

    fn decode(&self, path: &[u8]) -> Result<String, PathError> {
        let mut out = String::with_capacity(path.len() + 8);
        let mut rest = path;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            match byte {
                0..=0x1f | 0x7f => return Err(PathError::Control),
                b'%' => match escaped(rest) {
                    Some(value) => {
                        rest = &rest[2..];
                        self.push_decoded(value, &mut out)?;
                    }
                    None => {
                        self.unless_refused(Spellings::INVALID, PathError::BadEscape)?;
                        escape(b'%', &mut out);
                    }
                },
                b'\\' => {
                    self.unless_refused(Spellings::BACKSLASH, PathError::Backslash)?;
                    escape(byte, &mut out);
                }
                _ if is_path_character(byte) => out.push(byte as char),
                _ => escape(byte, &mut out),
            }
        }
        Ok(out)
    }

    /// An escaped byte: unreserved ones plain, others escaped again.
    fn push_decoded(&self, value: u8, out: &mut String) -> Result<(), PathError> {
        match value {
            b'/' => self.unless_refused(Spellings::ENCODED_SLASH, PathError::EncodedSlash)?,
            b'\\' => self.unless_refused(Spellings::BACKSLASH, PathError::Backslash)?,
            0..=0x1f | 0x7f => self.unless_refused(Spellings::CONTROL, PathError::Control)?,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(value as char);
                return Ok(());
            }
            _ => {}
        }
        escape(value, out);
        Ok(())
    }

    fn resolve(&self, path: &str) -> Result<String, PathError> {
        let mut out = String::with_capacity(path.len());
        let mut open = false;
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            open = matches!(segment, "" | "." | "..");
            match segment {
                "" if self.merge_slashes || is_last => {}
                "." | ".." => {
                    self.unless_refused(Spellings::DOT_SEGMENT, PathError::DotSegment)?;
                    if segment == ".." {
                        out.truncate(out.rfind('/').unwrap_or(0));
                    }
                }
                _ => {
                    if is_dot_with_parameter(segment) {
                        self.unless_refused(Spellings::DOT_PARAMETER, PathError::DotParameter)?;
                    }
                    out.push('/');
                    out.push_str(segment);
                }
            }
        }
        if open || out.is_empty() {
            out.push('/');
        }
        Ok(out)
    }
}

/// One pass without branches on the rare: only characters that a path may hold as they are, no `//`, no segment that
/// starts with a dot.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0u8;
    for &byte in path {
        if !is_path_character(byte) || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

/// RFC 3986's `pchar` and the slash, without `%`.
fn is_path_character(byte: u8) -> bool {
    matches!(byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
        | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        | b':' | b'@' | b'/')
}

/// `.;x`, `..;x`, and the same with the semicolon escaped.
fn is_dot_with_parameter(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

/// Raw or escaped: some servers cut parameters off before they decode, some behind it.
fn has_semicolon(path: &[u8]) -> bool {
    let escaped = |at: usize| path[at] == b'%' && escaped(&path[at + 1..]) == Some(b';');
    (0..path.len()).any(|at| path[at] == b';' || escaped(at))
}

/// The byte that the digits behind a `%` stand for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let [high, low, ..] = rest else { return None };
    hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low)
}

fn escape(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(DIGITS[usize::from(byte >> 4)] as char);
    out.push(DIGITS[usize::from(byte & 15)] as char);
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
        check("/é\"{}", "/%C3%A9%22%7B%7D");
        check("/...;x", "/...;x");
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for (path, error) in [
            ("a", PathError::NotAbsolute),
            ("", PathError::NotAbsolute),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a%5Cb", PathError::Backslash),
            ("/a\\b", PathError::Backslash),
            ("/a%00", PathError::Control),
            ("/a\u{1}", PathError::Control),
            ("/a%7f", PathError::Control),
            ("/a%", PathError::BadEscape),
            ("/a%2", PathError::BadEscape),
            ("/a%zz", PathError::BadEscape),
            ("/a/..;/b", PathError::DotParameter),
            ("/a/.;x=1", PathError::DotParameter),
            ("/a/%2e%2E%3bx/b", PathError::DotParameter),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    fn with(path: &str, change: impl FnOnce(&mut Paths)) -> Result<String, PathError> {
        let mut paths = Paths::default();
        change(&mut paths);
        paths.normalise(path).map(Cow::into_owned)
    }

    #[test]
    fn what_is_not_refused_is_one_character_of_its_segment() {
        let all = |paths: &mut Paths| paths.refuse = Spellings::NONE;
        for (path, expected) in [
            ("/a%2fb/..", "/"),
            ("/a\\b", "/a%5Cb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a%00b", "/a%00b"),
            ("/a%", "/a%25"),
            ("/a%%361", "/a%2561"),
            ("/a/..;/b", "/a/..;/b"),
        ] {
            assert_eq!(with(path, all).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(with("/a\u{1}", all), Err(PathError::Control));
    }

    #[test]
    fn slashes_are_kept_and_dot_segments_refused_where_that_is_asked() {
        let kept = |paths: &mut Paths| paths.merge_slashes = false;
        for (path, expected) in
            [("//a///b", "//a///b"), ("/a//../b", "/a/b"), ("/a//", "/a//"), ("//", "//"), ("/a/./", "/a/")]
        {
            assert_eq!(with(path, kept).as_deref(), Ok(expected), "{path}");
        }
        let strict = |paths: &mut Paths| paths.refuse = paths.refuse.and(Spellings::DOT_SEGMENT);
        for path in ["/a/../b", "/a/./b", "/a/%2e%2e/b", "/.."] {
            assert_eq!(with(path, strict), Err(PathError::DotSegment), "{path}");
        }
        assert_eq!(with("/a..b/.c", strict).as_deref(), Ok("/a..b/.c"));
    }

    #[test]
    fn parameters_are_refused_where_that_is_asked_and_only_there() {
        let strict = |paths: &mut Paths| paths.refuse = paths.refuse.and(Spellings::PARAMETER);
        for path in
            ["/admin;x/y", "/;a/admin", "/admin;", "/admin%3bx/y", "/admin%3B", "/a;x/../b", "/;/", "/a/..;/b", "//a;"]
        {
            assert_eq!(with(path, strict), Err(PathError::Parameter), "{path}");
        }
        for (path, expected) in [("/a/b", "/a/b"), ("/a%253bx", "/a%253bx"), ("/a,x=1", "/a,x=1"), ("/3b%2d", "/3b-")] {
            assert_eq!(with(path, strict).as_deref(), Ok(expected), "{path}");
        }
        for path in ["/a;x/y", "/a%3Bx", "/;jsessionid=1"] {
            assert_eq!(normalise(path).as_deref(), Ok(path), "legal, and in use");
        }
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[a./%2-5cCfF~é;{]{0,24}", refuse: bool, merge_slashes: bool) {
            let mut paths = Paths { merge_slashes, ..Paths::default() };
            if !refuse {
                paths.refuse = Spellings::NONE;
            }
            if let Ok(once) = paths.normalise(&path) {
                let twice = paths.normalise(&once).expect("a normal path is accepted");
                proptest::prop_assert_eq!(&once, &twice);
                proptest::prop_assert!(!merge_slashes || !once.contains("//"));
                proptest::prop_assert!(!once.split('/').any(|s| s == "." || s == ".."));
            }
        }
    }
}
