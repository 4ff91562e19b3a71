//! The HTTP check: one request on a fresh connection, judged by status, header and body.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::probe::{ANSWER_LIMIT, CheckFailure, verdict};
use crate::engine::policy::{Probe, Protocol};
use crate::upstream::wire::Wire;

const USER_AGENT: &str = concat!("pointsman-check/", env!("CARGO_PKG_VERSION"));

/// Sends the request of a [`Probe::Http`] on a fresh connection, in the protocol that requests are sent in, and judges
/// the answer.
pub(super) async fn ask(probe: &Probe, addr: SocketAddr, protocol: Protocol, stream: Wire) -> Result<(), CheckFailure> {
    let Probe::Http { path, method, host, statuses, header: expected, body } = probe else { return Ok(()) };
    let authority = host.clone().unwrap_or_else(|| addr.to_string());
    let builder = Request::builder().method(method.as_str()).header(header::USER_AGENT, USER_AGENT);
    let builder = match protocol {
        Protocol::Http1 => {
            builder.uri(path.as_str()).header(header::HOST, authority).header(header::CONNECTION, "close")
        }
        Protocol::H2 => {
            let scheme = if matches!(stream, Wire::Tls(_)) { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path.as_str()).build();
            builder.uri(uri.map_err(CheckFailure::Request)?)
        }
    };
    let request = builder.body(Empty::<Bytes>::new()).map_err(CheckFailure::Request)?;
    let judge = |response| judge(response, statuses, expected.as_ref(), body.as_deref());
    let stream = TokioIo::new(stream);
    match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(stream).await.map_err(CheckFailure::Exchange)?;
            let answer = async { judge(sender.send_request(request).await.map_err(CheckFailure::Exchange)?).await };
            // The socket's end is its owner's matter.
            let connection = async { connection.without_shutdown().await.map(drop) };
            verdict(connection, answer).await
        }
        Protocol::H2 => {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(CheckFailure::Exchange)?;
            let answer = async { judge(sender.send_request(request).await.map_err(CheckFailure::Exchange)?).await };
            verdict(connection, answer).await
        }
    }
}

async fn judge(
    response: http::Response<Incoming>,
    statuses: &[(u16, u16)],
    expected: Option<&(String, String)>,
    text: Option<&str>,
) -> Result<(), CheckFailure> {
    let status = response.status();
    if !statuses.iter().any(|(low, high)| (*low..=*high).contains(&status.as_u16())) {
        return Err(CheckFailure::Status(status));
    }
    if let Some((name, value)) = expected
        && response.headers().get(name.as_str()).is_none_or(|found| found.as_bytes() != value.as_bytes())
    {
        return Err(CheckFailure::Header(name.clone()));
    }
    let Some(text) = text else { return Ok(()) };
    let mut body = Limited::new(response.into_body(), ANSWER_LIMIT);
    let mut seen = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        seen.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if contains(&seen, text.as_bytes()) {
            return Ok(());
        }
    }
    Err(CheckFailure::Text)
}

/// Whether the needle is in there; the empty one always is.
pub(super) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}
