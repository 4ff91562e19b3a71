//! Credentials: literal, or a file that is read again when it changes and whenever the catalog says no.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

/// A token and the header it goes into. Its value never reaches a log: `Debug` leaves it out.
pub struct Token {
    header: HeaderName,
    file: Option<PathBuf>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    value: Option<HeaderValue>,
    changed: Option<SystemTime>,
    looked: Option<Instant>,
}

/// A token file's time of change is looked at this often.
const LOOK: Duration = Duration::from_secs(5);

impl Token {
    /// A literal token.
    ///
    /// # Errors
    /// When it holds characters that no header may hold. The message does not repeat it.
    pub fn literal(header: HeaderName, value: &str) -> Result<Self, String> {
        let held = Held { value: Some(sensitive(value)?), ..Held::default() };
        Ok(Self { header, file: None, held: Mutex::new(held) })
    }

    /// A token in a file. It may appear later; until then requests go without one.
    #[must_use]
    pub fn file(header: HeaderName, path: PathBuf) -> Self {
        Self { header, file: Some(path), held: Mutex::default() }
    }

    /// The header and its value now. The file is looked at every few seconds.
    #[must_use]
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        if self.file.is_some() {
            self.look(false);
        }
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.value.clone().map(|value| (self.header.clone(), value))
    }

    /// Looks at the file; with `again` it is read even when it looks unchanged (after a 403). Returns whether the token
    /// is another one.
    pub fn look(&self, again: bool) -> bool {
        let Some(path) = &self.file else { return false };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !again && held.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return false;
        }
        held.looked = Some(Instant::now());
        let changed = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        if !again && changed.is_some() && changed == held.changed {
            return false;
        }
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match read.and_then(|text| sensitive(text.trim())) {
            Ok(value) => {
                let other = held.value.as_ref() != Some(&value);
                (held.value, held.changed) = (Some(value), changed);
                other
            }
            Err(error) => {
                let stays =
                    if held.value.is_some() { "the last token stays in force" } else { "there is no token yet" };
                tracing::warn!(target: "pointsman::catalog", file = %path.display(), %error,
                    "the token file cannot be used; {stays}");
                false
            }
        }
    }

    /// When the file was last changed.
    #[must_use]
    pub fn changed(&self) -> Option<SystemTime> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).changed
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("header", &self.header).field("file", &self.file).finish_non_exhaustive()
    }
}

fn sensitive(value: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| "it holds characters that no header may hold".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// `user:password` as an `Authorization` value.
///
/// # Errors
/// Never for text, which base64 makes printable.
pub fn basic(user_password: &str) -> Result<HeaderValue, String> {
    sensitive(&format!("Basic {}", base64(user_password.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let sextet = (word >> (18 - 6 * at)) as usize & 63;
            out.push(if at <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("a:b?~", "YTpiP34=")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_token_file_is_read_again_on_demand_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let token = Token::file(HeaderName::from_static("x-consul-token"), path.clone());
        assert_eq!(token.header().unwrap().1, "first");
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(token.header().unwrap().1, "first", "looked at a moment ago");
        assert!(token.look(true));
        assert_eq!(token.header().unwrap().1, "second");
        std::fs::remove_file(&path).unwrap();
        assert!(!token.look(true));
        assert_eq!(token.header().unwrap().1, "second", "an unreadable file keeps the last one");
        assert!(!format!("{token:?} {:?}", token.header()).contains("second"));
    }
}
