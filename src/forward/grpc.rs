//! gRPC as a proxy sees it: which requests are calls, until when, and how a call is told that it failed.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::answer::Refusal;
use super::body::Source;
use super::error::Detail;
use super::headers::{X_POINTSMAN_ERROR, own_answer};
use super::settings::Settings;
use crate::engine::policy::Timeouts;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Bytes of a rule's text that a message has.
const MESSAGE_MOST: usize = 1024;
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How a call is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// gRPC itself.
    Native,
    /// gRPC-Web: the trailers are the body's last frame.
    Web,
    /// gRPC-Web in base64, for browsers that know text only.
    WebText,
}

/// What a request's content type makes of it; `None`: no call.
#[must_use]
pub fn call(headers: &HeaderMap) -> Option<Call> {
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    let rest = kind.strip_prefix(b"application/grpc")?;
    let (call, rest) = match (rest.strip_prefix(b"-web-text"), rest.strip_prefix(b"-web")) {
        (Some(rest), _) => (Call::WebText, rest),
        (None, Some(rest)) => (Call::Web, rest),
        (None, None) => (Call::Native, rest),
    };
    matches!(rest.first(), None | Some(b'+' | b';')).then_some(call)
}

/// A call's limits: its own deadline is the total where that is shorter. An instance that says nothing before its first
/// message is no stalled one, so the default limit on the head gives way to the call's deadline, or to `stream_idle`;
/// that the instance is alive is seen from its answers to pings.
#[must_use]
pub fn limits(mut limits: Timeouts, headers: &HeaderMap) -> Timeouts {
    let own = headers.get(GRPC_TIMEOUT).and_then(|value| timeout(value.as_bytes()));
    if limits.first_byte == Timeouts::default().first_byte {
        limits.first_byte = own.unwrap_or(limits.stream_idle);
    }
    limits.idle = limits.stream_idle;
    limits.total = match (own, limits.total) {
        (Some(own), 0) => own,
        (Some(own), total) => own.min(total),
        (None, total) => total,
    };
    limits
}

/// `grpc-timeout` in milliseconds, rounded up: at most 8 digits and a unit (gRPC's `PROTOCOL-HTTP2.md`).
fn timeout(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let millis = match unit {
        b'H' => amount * 3_600_000,
        b'M' => amount * 60_000,
        b'S' => amount * 1_000,
        b'm' => amount,
        b'u' => amount.div_ceil(1_000),
        b'n' => amount.div_ceil(1_000_000),
        _ => return None,
    };
    Some(millis.max(1))
}

/// The status in an answer's head (then it has no messages) or in its trailers.
#[must_use]
pub fn status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get(GRPC_STATUS)?.to_str().ok()?;
    // Too large a number is none that anybody knows: `unknown`.
    value.parse::<u32>().ok().map(|status| u8::try_from(status).unwrap_or(u8::MAX))
}

/// The answer to a call that is refused: HTTP's 200, and the reason where gRPC has it. A status that the rules ask for
/// says more than what it stands for.
#[must_use]
pub fn refuse(refusal: Refusal, call: Call, settings: &Settings) -> Response<Source> {
    let Refusal { status, detail } = refusal;
    let code = if status == detail.status() { status_of(detail) } else { of_http(status) };
    let mut response = without_messages(call, code, HeaderValue::from_static(detail.word()));
    if settings.error_header {
        response.headers_mut().insert(X_POINTSMAN_ERROR, HeaderValue::from_static(detail.word()));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, settings.retry_after.clone());
    }
    response
}

/// The answer of a rule's own as a call gets it: its status as gRPC's, its text as the message.
#[must_use]
pub fn own_rule(status: StatusCode, text: &[u8], call: Call) -> Response<Source> {
    // What has no place in a message is written `%XX` (gRPC's `PROTOCOL-HTTP2.md`).
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
    let text = text.trim_ascii_end();
    let text = &text[..text.len().min(MESSAGE_MOST)];
    let message = percent_encode(text, ESCAPED).to_string();
    let message = HeaderValue::try_from(message).unwrap_or(HeaderValue::from_static(""));
    without_messages(call, of_http(status), message)
}

/// A status and no messages: `Trailers-Only`.
fn without_messages(call: Call, code: u8, message: HeaderValue) -> Response<Source> {
    let mut response = Response::new(Source::own(bytes::Bytes::new()));
    let headers = response.headers_mut();
    own_answer(headers);
    let kind = match call {
        Call::Native => "application/grpc",
        Call::Web => "application/grpc-web+proto",
        Call::WebText => "application/grpc-web-text+proto",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
    headers.insert(GRPC_MESSAGE, message);
    response
}

/// The trailers of an answer that ends with a failure of ours.
#[must_use]
pub fn ending(detail: Detail) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    fields.insert(GRPC_STATUS, HeaderValue::from(u16::from(status_of(detail))));
    fields.insert(GRPC_MESSAGE, HeaderValue::from_static(detail.word()));
    fields
}

/// An HTTP status in the place of gRPC's: `http-grpc-status-mapping.md`.
fn of_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The status for each failure: gRPC's `http-grpc-status-mapping.md`, and finer where we know more than an HTTP status.
fn status_of(detail: Detail) -> u8 {
    const CANCELLED: u8 = 1;
    const DEADLINE_EXCEEDED: u8 = 4;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    match detail {
        Detail::NoRoute | Detail::NoRule => UNIMPLEMENTED,
        Detail::NoRoutableInstance
        | Detail::NotReady
        | Detail::Draining
        | Detail::ConnectFailed
        | Detail::UpstreamReset
        | Detail::MaxStreamAge
        | Detail::StreamIdle
        | Detail::UpstreamTls => UNAVAILABLE,
        Detail::UpstreamTimeout | Detail::ClientTimeout => DEADLINE_EXCEEDED,
        Detail::RateLimited | Detail::Overloaded | Detail::HeadTooLarge | Detail::TargetTooLong => RESOURCE_EXHAUSTED,
        Detail::Misdirected => PERMISSION_DENIED,
        Detail::ClientClosed => CANCELLED,
        Detail::UpstreamMalformed
        | Detail::BadRequest
        | Detail::PathRefused
        | Detail::ClientBody
        | Detail::MethodRefused
        | Detail::TransferCoding
        | Detail::Internal => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_tell_calls_from_other_requests() {
        let kind = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            call(&headers)
        };
        assert_eq!(kind("application/grpc"), Some(Call::Native));
        assert_eq!(kind("application/grpc+proto"), Some(Call::Native));
        assert_eq!(kind("application/grpc-web+proto"), Some(Call::Web));
        assert_eq!(kind("application/grpc-web-text"), Some(Call::WebText));
        assert_eq!(kind("application/grpcish"), None);
        assert_eq!(kind("application/json"), None);
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        for (value, millis) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("250m", 250), ("1u", 1), ("1500u", 2)]
        {
            assert_eq!(timeout(value.as_bytes()), Some(millis), "{value}");
        }
        for wrong in ["", "S", "123456789S", "1", "1x", "-1S", "1.5S"] {
            assert_eq!(timeout(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_call_brings_its_own_deadline() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("20S"));
        let given = limits(Timeouts { total: 30_000, ..Timeouts::default() }, &headers);
        assert_eq!((given.total, given.first_byte, given.idle), (20_000, 20_000, 300_000));
        let shorter = limits(Timeouts { total: 5_000, first_byte: 100, ..Timeouts::default() }, &headers);
        assert_eq!((shorter.total, shorter.first_byte), (5_000, 100));
        assert_eq!(limits(Timeouts::default(), &HeaderMap::new()).first_byte, 300_000);
    }
}
