//! gRPC-Web in front of an instance that speaks gRPC (gRPC's `PROTOCOL-WEB.md`): the messages are the same bytes; the
//! trailers become the last frame of the body, and the text form puts all of it in base64.

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE};
use http::{HeaderMap, HeaderValue};

use super::grpc::Call;

const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");
/// The flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// Makes a call's head one of gRPC.
pub fn towards_instance(headers: &mut HeaderMap) {
    headers.remove(X_GRPC_WEB);
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.replace("-web-text", "").replace("-web", "");
    if let Ok(kind) = HeaderValue::try_from(kind) {
        headers.insert(CONTENT_TYPE, kind);
    }
}

/// Makes an answer's head one of gRPC-Web.
pub fn towards_client(headers: &mut HeaderMap, call: Call) {
    headers.remove(CONTENT_LENGTH);
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let Some(rest) = kind.strip_prefix("application/grpc") else { return };
    let rest = if rest.is_empty() { "+proto" } else { rest };
    let form = if call == Call::WebText { "-web-text" } else { "-web" };
    if let Ok(kind) = HeaderValue::try_from(format!("application/grpc{form}{rest}")) {
        headers.insert(CONTENT_TYPE, kind);
    }
}

/// A piece of an answer's body.
#[must_use]
pub fn piece(data: Bytes, call: Call) -> Bytes {
    // Each piece is padded on its own, which the protocol allows: a client decodes them one after the other.
    if call == Call::WebText && !data.is_empty() { BASE64.encode(&data).into() } else { data }
}

/// Trailers as the body's last piece.
#[must_use]
pub fn last_piece(trailers: &HeaderMap, call: Call) -> Bytes {
    let mut block = BytesMut::new();
    for (name, value) in trailers {
        block.put_slice(name.as_str().as_bytes());
        block.put_slice(b": ");
        block.put_slice(value.as_bytes());
        block.put_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + block.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(block.len()).unwrap_or(u32::MAX));
    frame.put_slice(&block);
    piece(frame.freeze(), call)
}

/// Turns the text of a request back into bytes, in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Characters that wait for the rest of their group of four.
    rest: Vec<u8>,
}

impl Decoder {
    /// The bytes of one more piece. `None`: it is not base64.
    pub fn piece(&mut self, text: &[u8]) -> Option<Bytes> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.len() / 4 * 4;
        let mut bytes = Vec::with_capacity(whole / 4 * 3);
        // Padding may stand wherever the client's own pieces ended.
        for group in self.rest[..whole].split_inclusive_groups() {
            bytes.extend(BASE64.decode(group).ok()?);
        }
        self.rest.drain(..whole);
        Some(bytes.into())
    }

    /// Whether nothing is left over.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Runs of groups of four characters that end with the padding.
trait Groups {
    fn split_inclusive_groups(&self) -> impl Iterator<Item = &[u8]>;
}

impl Groups for [u8] {
    fn split_inclusive_groups(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self;
        std::iter::from_fn(move || {
            let padded = left.chunks(4).position(|group| group.last() == Some(&b'=')).map(|at| (at + 1) * 4);
            let (run, rest) = left.split_at(padded.unwrap_or(left.len()));
            left = rest;
            (!run.is_empty()).then_some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_in_pieces_of_any_size() {
        let text = [BASE64.encode(b"a"), BASE64.encode(b"some longer bytes"), BASE64.encode(b"xyz")].concat();
        for size in 1..=text.len() {
            let mut decoder = Decoder::default();
            let bytes: Vec<u8> =
                text.as_bytes().chunks(size).flat_map(|piece| decoder.piece(piece).unwrap().to_vec()).collect();
            assert_eq!(bytes, b"asome longer bytesxyz", "{size}");
            assert!(decoder.is_whole());
        }
        assert!(Decoder::default().piece(b"****").is_none());
        let mut cut = Decoder::default();
        cut.piece(b"YW").unwrap();
        assert!(!cut.is_whole());
    }

    #[test]
    fn trailers_become_a_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(&last_piece(&trailers, Call::Web)[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }

    #[test]
    fn content_types_keep_their_message_format() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web-text+proto"));
        towards_instance(&mut headers);
        assert_eq!(headers[CONTENT_TYPE], "application/grpc+proto");
        towards_client(&mut headers, Call::Web);
        assert_eq!(headers[CONTENT_TYPE], "application/grpc-web+proto");
    }
}
