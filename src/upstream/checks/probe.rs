//! One active check of one endpoint: connect, ask, judge. Every wait is under the check's deadline.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::engine::policy::{Check, Probe, Protocol};
use crate::upstream::Dial;
use crate::upstream::wire::Wire;

/// How much of an answer's body is searched.
const BODY_LIMIT: usize = 64 * 1024;

/// Why a check failed, in words for events.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// No verdict in time.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// The connection was not made.
    #[error("connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The exchange broke.
    #[error("exchange: {0}")]
    Exchange(#[source] hyper::Error),
    /// The check's request cannot be built from its settings.
    #[error("request: {0}")]
    Request(#[source] http::Error),
    /// Not an accepted status.
    #[error("status {0}")]
    Status(StatusCode),
    /// The expected header is missing or different: the address may belong to somebody else by now.
    #[error("header {0} is not as expected")]
    Header(String),
    /// The expected text is not in the body.
    #[error("the body lacks the expected text")]
    Body,
}

/// Runs one check to its verdict within `check.timeout`.
pub async fn run(check: &Check, dial: &Dial) -> Result<(), CheckFailure> {
    let exchange = async {
        match &check.probe {
            Probe::Tcp => dial.socket(None).await.map(drop).map_err(CheckFailure::Connect),
            Probe::Http { .. } => {
                let stream = dial.wire(Protocol::Http1, None).await.map_err(CheckFailure::Connect)?;
                http(&check.probe, dial.addr(), stream).await
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(check.timeout), exchange)
        .await
        .unwrap_or(Err(CheckFailure::Timeout(check.timeout)))
}

async fn http(probe: &Probe, addr: SocketAddr, stream: Wire) -> Result<(), CheckFailure> {
    let Probe::Http { path, method, host, statuses, header: expected, body } = probe else { return Ok(()) };
    let authority = host.clone().unwrap_or_else(|| addr.to_string());
    let request = Request::builder()
        .method(method.as_str())
        .uri(path.as_str())
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("pointsman-check/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(CheckFailure::Request)?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(CheckFailure::Exchange)?;
    let judge = async {
        let response = sender.send_request(request).await.map_err(CheckFailure::Exchange)?;
        judge(response, statuses, expected.as_ref(), body.as_deref()).await
    };
    tokio::pin!(connection, judge);
    tokio::select! {
        biased;
        verdict = &mut judge => verdict,
        // The connection may end as soon as the answer is read; the verdict is then still to be had from the buffer.
        ended = &mut connection => match ended {
            Ok(()) => judge.await,
            Err(error) => Err(CheckFailure::Exchange(error)),
        },
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
    let mut body = Limited::new(response.into_body(), BODY_LIMIT);
    let mut seen = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        seen.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if contains(&seen, text.as_bytes()) {
            return Ok(());
        }
    }
    Err(CheckFailure::Body)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn check(probe: Probe) -> Check {
        Check { probe, interval: 1_000, timeout: 500, rise: 1, fall: 1, hold_new: false, check_readmits: false }
    }

    fn http_probe(header: Option<(&str, &str)>, body: Option<&str>) -> Probe {
        Probe::Http {
            path: "/health".into(),
            method: "GET".into(),
            host: None,
            statuses: vec![(200, 399)],
            header: header.map(|(n, v)| (n.into(), v.into())),
            body: body.map(Into::into),
        }
    }

    async fn instance(answer: &'static str) -> Dial {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0u8; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer.is_empty() {
                    // Holds the connection open without a word until the client gives up.
                    let _ = stream.read(&mut head).await;
                }
            }
        });
        Dial::plain(addr)
    }

    #[tokio::test]
    async fn an_accepted_status_with_the_expected_header_and_body_passes() {
        let addr = instance("HTTP/1.1 200 OK\r\nx-service: web\r\ncontent-length: 7\r\n\r\nall ok\n").await;
        run(&check(http_probe(Some(("x-service", "web")), Some("ok"))), &addr).await.unwrap();
        let other = run(&check(http_probe(Some(("x-service", "api")), None)), &addr).await;
        assert!(matches!(other, Err(CheckFailure::Header(_))), "{other:?}");
        let text = run(&check(http_probe(None, Some("bad"))), &addr).await;
        assert!(matches!(text, Err(CheckFailure::Body)), "{text:?}");
    }

    #[tokio::test]
    async fn a_bad_status_silence_garbage_and_a_closed_port_fail_in_their_own_words() {
        let unavailable = instance("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        let status = run(&check(http_probe(None, None)), &unavailable).await;
        assert!(matches!(status, Err(CheckFailure::Status(s)) if s == 503), "{status:?}");
        let silent = run(&check(http_probe(None, None)), &instance("").await).await;
        assert!(matches!(silent, Err(CheckFailure::Timeout(500))), "{silent:?}");
        let garbage = run(&check(http_probe(None, None)), &instance("SSH-2.0-x\r\n\r\n").await).await;
        assert!(matches!(garbage, Err(CheckFailure::Exchange(_))), "{garbage:?}");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(run(&check(Probe::Tcp), &Dial::plain(closed)).await, Err(CheckFailure::Connect(_))));
    }
}
