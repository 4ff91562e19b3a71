//! The HTTP check: one request, judged by status, header and body.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, Version, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Parts};
use hyper_util::rt::TokioIo;

use super::kept::Kept;
use super::probe::{ANSWER_LIMIT, CheckFailure, streams, verdict};
use crate::engine::policy::{Probe, Protocol};
use crate::upstream::wire::Wire;

const USER_AGENT: &str = concat!("pointsman-check/", env!("CARGO_PKG_VERSION"));
/// The rest of an answer that has passed is waited for so long, for the sake of the connection alone.
const REST: Duration = Duration::from_millis(50);

/// Sends the request of a [`Probe::Http`], in the protocol of the connection, and judges the answer. Gives the connection
/// back if it is to stay (`keep`) and may.
pub(super) async fn ask(
    probe: &Probe,
    addr: SocketAddr,
    on: Kept,
    keep: bool,
    encrypted: bool,
) -> Result<Option<Kept>, CheckFailure> {
    let Probe::Http { path, method, host, statuses, header: expected, body } = probe else { return Ok(None) };
    let authority = host.clone().unwrap_or_else(|| addr.to_string());
    let builder = Request::builder().method(method.as_str()).header(header::USER_AGENT, USER_AGENT);
    let builder = match &on {
        Kept::Http1(_) => {
            let builder = builder.uri(path.as_str()).header(header::HOST, authority);
            if keep { builder } else { builder.header(header::CONNECTION, "close") }
        }
        Kept::H2(_) => {
            let scheme = if encrypted { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path.as_str()).build();
            builder.uri(uri.map_err(CheckFailure::Request)?)
        }
    };
    let request = builder.body(Full::<Bytes>::default()).map_err(CheckFailure::Request)?;
    let judge = async |answer: hyper::Result<http::Response<Incoming>>| {
        let response = answer.map_err(CheckFailure::Exchange)?;
        judge(response, statuses, expected.as_ref(), body.as_deref(), keep).await
    };
    match on {
        Kept::Http1(wire) => {
            let (mut sender, mut connection) =
                http1::handshake(TokioIo::new(wire)).await.map_err(CheckFailure::Exchange)?;
            let answer = async { judge(sender.send_request(request).await).await };
            // The socket's end is its owner's matter.
            let mut has_ended = false;
            let driven = poll_fn(|cx| {
                let polled = connection.poll_without_shutdown(cx);
                has_ended |= polled.is_ready();
                polled
            });
            let stays = verdict(driven, answer).await?;
            let Parts { io, read_buf, .. } = connection.into_parts();
            Ok((stays && !has_ended && read_buf.is_empty()).then(|| Kept::Http1(io.into_inner())))
        }
        Kept::H2(mut open) => {
            let answer = async { judge(open.sender.send_request(request).await).await };
            let stays = verdict(&mut open.connection, answer).await?;
            Ok(stays.then_some(Kept::H2(open)))
        }
    }
}

/// A fresh connection in this protocol.
pub(super) async fn open(wire: Wire, protocol: Protocol) -> Result<Kept, CheckFailure> {
    match protocol {
        Protocol::Http1 => Ok(Kept::Http1(wire)),
        Protocol::H2 => streams(wire).await,
    }
}

/// Whether the connection may stay open after an answer that passes.
async fn judge(
    response: http::Response<Incoming>,
    statuses: &[(u16, u16)],
    expected: Option<&(String, String)>,
    text: Option<&str>,
    keep: bool,
) -> Result<bool, CheckFailure> {
    let status = response.status();
    if !statuses.iter().any(|(low, high)| (*low..=*high).contains(&status.as_u16())) {
        return Err(CheckFailure::Status(status));
    }
    if let Some((name, value)) = expected
        && response.headers().get(name.as_str()).is_none_or(|found| found.as_bytes() != value.as_bytes())
    {
        return Err(CheckFailure::Header(name.clone()));
    }
    let stays = keep && response.version() >= Version::HTTP_11 && !says_close(response.headers());
    let mut body = Limited::new(response.into_body(), ANSWER_LIMIT);
    if let Some(text) = text {
        let mut seen = Vec::new();
        while !contains(&seen, text.as_bytes()) {
            let Some(Ok(frame)) = body.frame().await else { return Err(CheckFailure::Text) };
            seen.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    }
    let rest = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    };
    Ok(stays && tokio::time::timeout(REST, rest).await.unwrap_or(false))
}

fn says_close(fields: &HeaderMap) -> bool {
    let close = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"close");
    fields.get_all(header::CONNECTION).iter().any(|field| field.as_bytes().split(|byte| *byte == b',').any(close))
}

/// Whether the needle is in there; the empty one always is.
pub(super) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}
