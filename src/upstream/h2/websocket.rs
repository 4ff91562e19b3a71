//! The handshake of WebSocket (RFC 6455, 4) on either side of an extended CONNECT, which has none.

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What a server proves with that it speaks WebSocket.
pub const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// What it proves it of.
pub const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key made of 16 bytes of luck.
#[must_use]
pub fn key(luck: [u8; 16]) -> HeaderValue {
    HeaderValue::try_from(BASE64.encode(&luck)).unwrap_or(HeaderValue::from_static(""))
}

/// The answer to a key.
#[must_use]
pub fn accept(key: &[u8]) -> HeaderValue {
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat());
    HeaderValue::try_from(BASE64.encode(proof.as_ref())).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(super::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
