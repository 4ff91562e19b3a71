//! Tokens that let one request ask the proxy how it was decided.
//!
//! A token is `EXPIRY.MAC`: seconds since the epoch, and HMAC-SHA-256 in base64url over expiry, host and path. It is good
//! for one host and one path (as the rules see them), so that one that leaks tells nothing about others, and until it
//! expires. It may be used more than once until then: it changes nothing, and to remember used ones every core and every
//! replica would have to agree. It does not name method, query or fields, so that they can be varied while debugging.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use arc_swap::ArcSwapOption;
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

/// The longest that a token may be good for; one that says longer is refused.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The default for new ones.
pub const USUAL: Duration = Duration::from_secs(5 * 60);
/// The shortest key, in bytes.
const SHORTEST_KEY: usize = 16;

/// What issues and verifies tokens. Its `Debug` shows nothing of it.
pub struct Key(hmac::Key);

/// The key in force, stored again when its file was read again; empty: none is configured.
pub type Keys = Arc<ArcSwapOption<Key>>;

impl Key {
    /// The key in a file, without line feeds at its end.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than 16 bytes.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let bytes = bytes.trim_ascii_end();
        if bytes.len() < SHORTEST_KEY {
            let message = format!("a key has at least {SHORTEST_KEY} bytes, this one has {}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A token for a host and a path, both normalised, good for so long from now.
    #[must_use]
    pub fn issue(&self, host: &str, path: &str, now: SystemTime, good_for: Duration) -> String {
        let expiry = seconds(now).saturating_add(good_for.min(LONGEST).as_secs());
        let mac = hmac::sign(&self.0, &signed(expiry, host, path));
        format!("{expiry}.{}", BASE64URL_NOPAD.encode(mac.as_ref()))
    }

    /// Whether a token is one of ours, for this host and path, and not expired. Takes the same time for every wrong one
    /// of the right form.
    #[must_use]
    pub fn verifies(&self, token: &[u8], host: &str, path: &str, now: SystemTime) -> bool {
        let Some((expiry, mac)) = parse(token) else { return false };
        let now = seconds(now);
        let in_time = expiry > now && expiry <= now.saturating_add(LONGEST.as_secs());
        hmac::verify(&self.0, &signed(expiry, host, path), &mac).is_ok() && in_time
    }
}

fn parse(token: &[u8]) -> Option<(u64, [u8; 32])> {
    let (expiry, mac) = std::str::from_utf8(token).ok()?.split_once('.')?;
    let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
    Some((expiry.parse().ok()?, mac.try_into().ok()?))
}

/// What is signed. Neither part can hold the zero byte between them.
fn signed(expiry: u64, host: &str, path: &str) -> Vec<u8> {
    format!("pointsman debug token\0{expiry}\0{host}\0{path}").into_bytes()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    #[test]
    fn a_token_is_good_for_its_host_and_path_and_time_only() {
        let (ours, theirs) = (key("ours, and long enough"), key("theirs, long enough"));
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let token = ours.issue("shop.test", "/cart", now, USUAL);
        let good = |key: &Key, token: &str, host, path, later| {
            key.verifies(token.as_bytes(), host, path, now + Duration::from_secs(later))
        };
        assert!(good(&ours, &token, "shop.test", "/cart", 0));
        assert!(good(&ours, &token, "shop.test", "/cart", 299));
        assert!(!good(&ours, &token, "shop.test", "/cart", 300), "expired");
        assert!(!good(&ours, &token, "shop.test", "/cart/1", 0));
        assert!(!good(&ours, &token, "other.test", "/cart", 0));
        assert!(!good(&theirs, &token, "shop.test", "/cart", 0));
        let (expiry, mac) = token.split_once('.').unwrap();
        let later = format!("{}.{mac}", expiry.parse::<u64>().unwrap() + 1);
        assert!(!good(&ours, &later, "shop.test", "/cart", 0), "the expiry is signed");
        for broken in
            ["", ".", "1", &mac[1..], expiry, &token[..token.len() - 1], "99999999999999999999999.AAAA", "é.é"]
        {
            assert!(!good(&ours, broken, "shop.test", "/cart", 0), "{broken}");
        }
    }

    #[test]
    fn nobody_gets_one_for_ever() {
        let ours = key("ours, and long enough");
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let token = ours.issue("a", "/", now, Duration::from_secs(u64::MAX));
        assert!(!ours.verifies(token.as_bytes(), "a", "/", now + LONGEST));
        let early = now - Duration::from_secs(60);
        assert!(!ours.verifies(token.as_bytes(), "a", "/", early), "its end is further away than any may be");
    }

    #[test]
    fn a_short_key_is_refused_and_line_feeds_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "fifteen bytes..\n").unwrap();
        assert!(Key::read(&path).unwrap_err().to_string().contains("at least 16 bytes, this one has 15"));
        std::fs::write(&path, "sixteen bytes, 1\n\n").unwrap();
        let token = Key::read(&path).unwrap().issue("a", "/", SystemTime::now(), USUAL);
        assert!(key("sixteen bytes, 1").verifies(token.as_bytes(), "a", "/", SystemTime::now()));
    }
}
