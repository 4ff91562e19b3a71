//! The gRPC health checking protocol v1, over HTTP/2 with prior knowledge.
//!
//! The call is `grpc.health.v1.Health/Check` (grpc/grpc, doc/health-checking.md), framed as doc/PROTOCOL-HTTP2.md says.
//! Its two messages have one field each, so they are written and read by hand (protobuf.dev, "Encoding"):
//! `HealthCheckRequest { string service = 1; }`, `HealthCheckResponse { ServingStatus status = 1; }`.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};

use super::kept::{Kept, Streams};
use super::probe::{ANSWER_LIMIT, CheckFailure, verdict};

/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// The field number 1 with a length-delimited value, and with a varint.
const TAG_TEXT: u8 = 1 << 3 | 2;
const TAG_VARINT: u64 = 1 << 3;
/// Of a `grpc-message` that is kept.
const MESSAGE_LIMIT: usize = 200;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// Whose health; "": the server's.
    pub service: &'a str,
    /// `None`: the address.
    pub authority: Option<&'a str>,
    /// What the server is told of our patience.
    pub timeout_ms: u64,
}

/// Makes the call. SERVING passes. Gives the connection back.
pub(super) async fn ask(call: Call<'_>, addr: SocketAddr, mut on: Box<Streams>) -> Result<Kept, CheckFailure> {
    let request = request(call, addr).map_err(CheckFailure::Request)?;
    let judge = async {
        let response = on.sender.send_request(request).await.map_err(CheckFailure::Exchange)?;
        judge(response).await
    };
    verdict(&mut on.connection, judge).await?;
    Ok(Kept::H2(on))
}

fn request(call: Call<'_>, addr: SocketAddr) -> Result<Request<Full<Bytes>>, http::Error> {
    let authority = call.authority.map_or_else(|| addr.to_string(), str::to_owned);
    Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("grpc-pointsman-check/", env!("CARGO_PKG_VERSION")))
        .header("grpc-timeout", timeout(call.timeout_ms))
        .body(Full::new(message(call.service)))
}

/// At most eight digits and a unit.
fn timeout(ms: u64) -> String {
    if ms < 100_000_000 { format!("{ms}m") } else { format!("{}S", (ms / 1_000).min(99_999_999)) }
}

/// A `HealthCheckRequest` in its frame: not compressed, four bytes of length.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    // The default is not written.
    if !service.is_empty() {
        field.put_u8(TAG_TEXT);
        let mut length = service.len();
        while length >= 0x80 {
            field.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        field.put_u8(length as u8);
        field.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + field.len());
    frame.put_u8(0);
    frame.put_u32(field.len() as u32);
    frame.put(field);
    frame.freeze()
}

async fn judge(response: http::Response<hyper::body::Incoming>) -> Result<(), CheckFailure> {
    if response.status() != StatusCode::OK {
        return Err(CheckFailure::Status(response.status()));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(b"application/grpc") {
        return Err(CheckFailure::Protocol("gRPC"));
    }
    // An answer without a message has its status in the head.
    if let Some(status) = status(response.headers()) {
        status?;
    }
    let collected =
        Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(|error| match error.downcast() {
            Ok(error) => CheckFailure::Exchange(*error),
            Err(_) => CheckFailure::Protocol("a health answer: it is too long"),
        })?;
    match collected.trailers().and_then(status) {
        Some(status) => status?,
        None => return Err(CheckFailure::Protocol("gRPC: there is no grpc-status")),
    }
    match serving_status(&collected.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(CheckFailure::NotServing(u16::try_from(other).unwrap_or(0))),
        None => Err(CheckFailure::Protocol("a health answer")),
    }
}

/// What `grpc-status` says, if it is there.
fn status(fields: &HeaderMap) -> Option<Result<(), CheckFailure>> {
    let status = fields.get("grpc-status")?;
    Some(match status.to_str().ok().and_then(|text| text.parse::<u16>().ok()) {
        Some(0) => Ok(()),
        // 2 is UNKNOWN, which a status that is no number stands for.
        code => {
            let message = fields.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
            let message = String::from_utf8_lossy(&message[..message.len().min(MESSAGE_LIMIT)]).into_owned();
            Err(CheckFailure::Grpc(code.unwrap_or(2), message))
        }
    })
}

/// The `status` of one framed `HealthCheckResponse`; 0 where it is not written. `None`: not such a message.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], mut rest) = body.split_first_chunk::<5>()?;
    if compressed != 0 || u32::from_be_bytes([a, b, c, d]) as usize != rest.len() {
        return None;
    }
    let mut found = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag, tag & 7) {
            (TAG_VARINT, _) => found = varint(&mut rest)?,
            // Fields of a later version are passed over.
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_protobuf_in_its_frame() {
        assert_eq!(&*message(""), [0, 0, 0, 0, 0]);
        assert_eq!(&*message("a.B"), [0, 0, 0, 0, 5, 0x0A, 3, b'a', b'.', b'B']);
        let long = message(&"x".repeat(200));
        assert_eq!((long.len(), &long[5..8]), (208, &[0x0A, 0xC8, 1][..]));
        assert_eq!((timeout(2_000), timeout(100_000_000)), ("2000m".into(), "100000S".into()));
    }

    #[test]
    fn an_answer_is_read_and_a_wrong_one_is_refused() {
        let framed = |field: &[u8]| [&[0, 0, 0, 0, field.len() as u8], field].concat();
        assert_eq!(serving_status(&framed(&[0x08, 1])), Some(1));
        assert_eq!(serving_status(&framed(&[0x08, 2])), Some(2));
        assert_eq!(serving_status(&framed(&[])), Some(0));
        assert_eq!(serving_status(&framed(&[0x12, 2, 9, 9, 0x18, 0x80, 1, 0x25, 1, 2, 3, 4, 0x08, 1])), Some(1));
        for wrong in [&[1, 0, 0, 0, 2, 8, 1][..], &[0, 0, 0, 0, 3, 8, 1], &[0, 0, 0, 0], &[0, 0, 0, 0, 1, 0x08]] {
            assert_eq!(serving_status(wrong), None, "{wrong:?}");
        }
        assert_eq!(serving_status(&framed(&[0x12, 200, 1])), None);
        assert_eq!(serving_status(&framed(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1])), None);
    }
}
