//! Reading a body: with a deadline between its parts, and a cap on its size as sent and inflated.

use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::HttpError;

/// The whole body as sent.
///
/// # Errors
/// Cut, silent for longer than `idle`, or longer than `cap`.
pub async fn read(mut body: Incoming, idle: Duration, cap: usize) -> Result<Bytes, HttpError> {
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| HttpError::BodyIdle(idle))?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        if let Ok(data) = frame.map_err(HttpError::BodyCut)?.into_data() {
            if all.len() + data.len() > cap {
                return Err(HttpError::BodyTooLarge(cap));
            }
            all.extend_from_slice(&data);
        }
    }
}

/// Above this size inflating and parsing leave the runtime's threads.
pub const LARGE: usize = 1 << 20;

/// Undoes the content coding.
///
/// # Errors
/// An unknown coding, a broken stream, or more than `cap` bytes inflated.
pub fn inflate(body: Bytes, coding: Option<&str>, cap: usize) -> Result<Bytes, HttpError> {
    match coding.map(str::trim).filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")) {
        None => Ok(body),
        Some(coding) if coding.eq_ignore_ascii_case("gzip") => {
            let mut out = Vec::with_capacity((body.len() * 4).min(cap));
            let mut plain = flate2::read::MultiGzDecoder::new(&body[..]).take(cap as u64 + 1);
            plain
                .read_to_end(&mut out)
                .map_err(|error| HttpError::Coding { coding: "gzip".to_owned(), problem: error.to_string() })?;
            if out.len() > cap { Err(HttpError::BodyTooLarge(cap)) } else { Ok(out.into()) }
        }
        Some(other) => Err(HttpError::Coding { coding: other.to_owned(), problem: "it was not asked for".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(plain).unwrap();
        writer.finish().unwrap().into()
    }

    #[test]
    fn gzip_is_undone_within_the_cap() {
        let plain = vec![b'a'; 100_000];
        assert_eq!(inflate(gzip(&plain), Some("gzip"), 100_000).unwrap(), plain);
        assert!(matches!(inflate(gzip(&plain), Some("gzip"), 99_999), Err(HttpError::BodyTooLarge(99_999))));
        assert_eq!(inflate(Bytes::from_static(b"[]"), None, 10).unwrap(), "[]");
    }

    #[test]
    fn a_broken_or_foreign_coding_is_an_error() {
        let whole = gzip(b"hello");
        assert!(inflate(whole.slice(..whole.len() - 4), Some("gzip"), 100).is_err());
        assert!(inflate(Bytes::from_static(b"[]"), Some("gzip"), 100).is_err());
        assert!(inflate(whole, Some("br"), 100).is_err());
    }
}
