//! One active check of one endpoint, run to its verdict under the check's deadline.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http::StatusCode;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::kept::{Kept, Streams};
use super::{certificate, command, grpc, request, tcp};
use crate::engine::health::check::Failure;
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::policy::{Check, Probe, Protocol};
use crate::upstream::Dial;
use crate::upstream::dial::is_ours;
use crate::upstream::wire::Wire;

/// How much of an answer is read.
pub(super) const ANSWER_LIMIT: usize = 64 * 1024;

/// Why a check failed, with what the process's log says beyond [`CheckFailure::kind`].
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// No verdict in time.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// The connection was not made.
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    /// There was no TLS handshake.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// The certificate is not for `expect.tls_name`: the address may belong to somebody else by now.
    #[error("the certificate is not for {0}: {1}")]
    TlsName(Text, String),
    /// The exchange broke.
    #[error("exchange: {0}")]
    Exchange(#[source] hyper::Error),
    /// The connection broke.
    #[error("exchange: {0}")]
    Broken(#[source] io::Error),
    /// The check's request cannot be built from its settings.
    #[error("request: {0}")]
    Request(#[source] http::Error),
    /// What came is not the protocol.
    #[error("not {0}")]
    Protocol(&'static str),
    /// Not an accepted status.
    #[error("status {0}")]
    Status(StatusCode),
    /// The expected header is missing or different: the address may belong to somebody else by now.
    #[error("header {0} is not as expected")]
    Header(String),
    /// The expected text is not in what came.
    #[error("the expected text did not come")]
    Text,
    /// A gRPC status other than OK, with its message.
    #[error("gRPC status {0} {1:?}")]
    Grpc(u16, String),
    /// The gRPC health service does not say SERVING.
    #[error("gRPC health: serving status {0}")]
    NotServing(u16),
    /// The command's exit status (a signal: 256 more) and the beginning of what it wrote.
    #[error("the command ended with {0}: {1:?}")]
    Exit(u16, String),
    /// The command could not be started.
    #[error("the command cannot be started: {0}")]
    Spawn(#[source] io::Error),
}

impl CheckFailure {
    /// From [`Dial::wire`].
    fn unreached(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { Self::Tls(error) } else { Self::Connect(error) }
    }

    /// Whether it was not made, for want of descriptors, ports or memory here: that says nothing of the instance.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Connect(error) | Self::Spawn(error) if is_ours(error))
    }

    /// What an event, `explain` and the metrics say.
    #[must_use]
    pub fn kind(&self) -> Failure {
        match self {
            Self::Timeout(_) => Failure::Timeout,
            Self::Connect(_) => Failure::Connect,
            Self::Tls(_) => Failure::Tls,
            Self::TlsName(..) => Failure::TlsName,
            Self::Exchange(_) | Self::Broken(_) | Self::Request(_) | Self::Protocol(_) => Failure::Exchange,
            Self::Status(status) => Failure::Status { code: status.as_u16() },
            Self::Header(_) => Failure::Header,
            Self::Text => Failure::Text,
            Self::Grpc(code, _) => Failure::Grpc { code: *code },
            Self::NotServing(code) => Failure::NotServing { code: *code },
            Self::Exit(code, _) => Failure::Exit { code: *code },
            Self::Spawn(_) => Failure::Spawn,
        }
    }
}

/// The verdict of `judge`, while `connection` carries what it says and hears.
pub(super) async fn verdict<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    judge: impl Future<Output = Result<T, CheckFailure>>,
) -> Result<T, CheckFailure> {
    let (mut connection, mut judge) = (pin!(connection), pin!(judge));
    tokio::select! {
        biased;
        verdict = &mut judge => verdict,
        // The instance may close as soon as it has answered; the verdict is then still to be had from what came.
        ended = &mut connection => match ended {
            Ok(()) => judge.await,
            Err(error) => match judge.await {
                Err(CheckFailure::Exchange(_)) => Err(CheckFailure::Exchange(error)),
                judged => judged,
            },
        },
    }
}

/// A fresh connection of HTTP/2.
pub(super) async fn streams(wire: Wire) -> Result<Kept, CheckFailure> {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(wire)).await.map_err(CheckFailure::Exchange)?;
    Ok(Kept::H2(Box::new(Streams { sender, connection })))
}

/// What came of a check.
#[derive(Debug)]
pub(super) struct Asked {
    /// The verdict.
    pub judged: Result<(), CheckFailure>,
    /// The connection, where it may serve once more.
    pub left: Option<Kept>,
    /// On which connection it was asked.
    pub on: On,
}

/// The connection that a check was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// A fresh one, or none at all.
    Fresh,
    /// One that was kept.
    Kept,
    /// A fresh one, because the kept one had ended.
    Again,
}

/// Runs one check to its verdict within `check.timeout`, on a fresh connection. A command runs on this machine; whether that
/// is allowed is judged before (`checks.allow_commands`). `protocol`: what requests to the instance are sent in, and so an
/// HTTP check.
///
/// # Errors
/// Why the instance does not pass.
pub async fn run(check: &Check, instance: &Instance, dial: &Dial, protocol: Protocol) -> Result<(), CheckFailure> {
    ask(check, instance, dial, protocol, Reuse::default()).await.judged
}

/// What a check may do with connections.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    /// One that an earlier check of the same instance has left.
    pub kept: Option<Kept>,
    /// Whether this check may leave its own.
    pub keep: bool,
}

/// As [`run`], on a kept connection where there is one. If that turns out to have ended, a fresh one is asked within the
/// same time: an instance may close what is idle, and that says nothing of it.
pub(super) async fn ask(check: &Check, instance: &Instance, dial: &Dial, protocol: Protocol, reuse: Reuse) -> Asked {
    let Reuse { kept, keep } = reuse;
    let mut on = On::Fresh;
    let asked = async {
        if let Some(mut kept) = kept {
            if kept.is_quiet() {
                on = On::Kept;
                match exchange(check, instance, dial, kept, keep).await {
                    Err(CheckFailure::Exchange(_)) => {}
                    ended => return ended,
                }
            }
            on = On::Again;
        }
        match &check.probe {
            Probe::Tcp { send: None, expect: None } if check.tls_name.is_none() => {
                let socket = dial.socket(None).await.map_err(CheckFailure::Connect)?;
                leave_at_once(&socket);
                Ok(None)
            }
            Probe::Tcp { send, expect } => {
                let wire = reach(check, instance, dial, Protocol::Http1).await?;
                tcp::ask(wire, send.as_deref(), expect.as_deref()).await.map(|()| None)
            }
            Probe::Http { .. } => {
                let open = request::open(reach(check, instance, dial, protocol).await?, protocol).await?;
                exchange(check, instance, dial, open, keep).await
            }
            Probe::Grpc { .. } => {
                let open = streams(reach(check, instance, dial, Protocol::H2).await?).await?;
                exchange(check, instance, dial, open, keep).await
            }
            Probe::Command { argv } => command::ask(argv, instance).await.map(|()| None),
        }
    };
    let ended = tokio::time::timeout(Duration::from_millis(check.timeout), asked)
        .await
        .unwrap_or(Err(CheckFailure::Timeout(check.timeout)));
    let (judged, left) = match ended {
        Ok(left) => (Ok(()), left.filter(|_| keep)),
        Err(failure) => (Err(failure), None),
    };
    Asked { judged, left, on }
}

/// One request and its answer on an open connection, which is given back if it may serve once more.
async fn exchange(
    check: &Check,
    instance: &Instance,
    dial: &Dial,
    on: Kept,
    keep: bool,
) -> Result<Option<Kept>, CheckFailure> {
    match (&check.probe, on) {
        (Probe::Grpc { service, authority }, Kept::H2(on)) => {
            let call = grpc::Call { service, authority: authority.as_deref(), timeout_ms: check.timeout };
            grpc::ask(call, instance.addr, on).await.map(Some)
        }
        (probe, on) => request::ask(probe, instance.addr, on, keep, dial.is_encrypted()).await,
    }
}

/// A fresh connection to an instance that is who it should be.
async fn reach(check: &Check, instance: &Instance, dial: &Dial, protocol: Protocol) -> Result<Wire, CheckFailure> {
    let wire = dial.wire(protocol, None).await.map_err(CheckFailure::unreached)?;
    if let Wire::Plain(socket) = &wire {
        leave_at_once(socket);
    }
    if let Some(name) = &check.tls_name {
        let is_for = |name: String| certificate::is_for(&name, &wire);
        let judged = certificate::name_of(name, instance).and_then(is_for);
        judged.map_err(|why| CheckFailure::TlsName(Text::clone(name), why))?;
    }
    Ok(wire)
}

/// Its end will be a reset, as of HAProxy's checks: what was asked has been answered or is not waited for. Saying good-bye
/// costs a tenth more, and leaves a socket behind that waits (TIME_WAIT) for each of 5,000 checks a second.
fn leave_at_once(socket: &TcpStream) {
    // A system that refuses gets the longer way.
    let _ = socket.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::engine::testing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn check(probe: Probe) -> Check {
        Check { interval: 1_000, timeout: 500, rise: 1, fall: 1, ..Check::new(probe) }
    }

    async fn run(check: &Check, addr: SocketAddr) -> Result<(), CheckFailure> {
        let instance = testing::instance("web", "web-1", addr.port(), &[]);
        super::run(check, &instance, &Dial::plain(addr), Protocol::Http1).await
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

    async fn instance(answer: &'static str) -> SocketAddr {
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
        addr
    }

    #[tokio::test]
    async fn an_accepted_status_with_the_expected_header_and_body_passes() {
        let addr = instance("HTTP/1.1 200 OK\r\nx-service: web\r\ncontent-length: 7\r\n\r\nall ok\n").await;
        run(&check(http_probe(Some(("x-service", "web")), Some("ok"))), addr).await.unwrap();
        let other = run(&check(http_probe(Some(("x-service", "api")), None)), addr).await;
        assert!(matches!(other, Err(CheckFailure::Header(_))), "{other:?}");
        let text = run(&check(http_probe(None, Some("bad"))), addr).await;
        assert!(matches!(text, Err(CheckFailure::Text)), "{text:?}");
    }

    #[tokio::test]
    async fn a_bad_status_silence_garbage_and_a_closed_port_fail_in_their_own_words() {
        let unavailable = instance("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        let status = run(&check(http_probe(None, None)), unavailable).await;
        assert!(matches!(status, Err(CheckFailure::Status(s)) if s == 503), "{status:?}");
        let silent = run(&check(http_probe(None, None)), instance("").await).await;
        assert!(matches!(silent, Err(CheckFailure::Timeout(500))), "{silent:?}");
        let garbage = run(&check(http_probe(None, None)), instance("SSH-2.0-x\r\n\r\n").await).await;
        assert!(matches!(garbage, Err(CheckFailure::Exchange(_))), "{garbage:?}");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(run(&check(Check::CONNECTS), closed).await, Err(CheckFailure::Connect(_))));
    }
}
