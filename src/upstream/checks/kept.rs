//! Connections that checks leave open for the next check of the same endpoint (Envoy's `reuse_connection`).
//!
//! A fresh connection is most of what a check costs. What a kept one cannot show is that the instance still *accepts*
//! connections: its process may answer on the old ones while its listening socket is gone, or nobody takes from its
//! queue. So every sixth check of an endpoint, and any that comes a minute after its connection was opened, is made on a
//! fresh one: at five sixths of the saving, such an instance is found within six intervals and at most a minute, and
//! requests, which do need new connections, find it sooner by ejection. Where there is doubt nothing is kept: the first check
//! is on a fresh connection, and so are those after a failure, until the verdict is settled again.
//!
//! What is kept is the bare socket, or what TLS or HTTP/2 need to go on; of HTTP/1.1 no buffer and no task. When the other
//! side closes it meanwhile, nothing happens until the next check finds it so and takes a fresh one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, ReadBuf};

use crate::engine::policy::{Check, Probe, Protocol};
use crate::engine::snapshot::Live;
use crate::engine::time::Millis;
use crate::upstream::Dial;
use crate::upstream::wire::Wire;

/// Checks on one connection.
const CHECKS: u32 = 6;
/// How old a connection may be at a check. Below the keep-alive time of nginx (75 s), and what is asked once a minute is
/// not kept at all.
const AGE_MS: u64 = 60_000;
/// Memory that kept connections may take together.
const MEMORY: usize = 64 << 20;

/// A connection on which the next request may be sent.
#[derive(Debug)]
pub(super) enum Kept {
    /// Of HTTP/1.1, between an answer and the next request.
    Http1(Wire),
    /// Of HTTP/2.
    H2(Box<Streams>),
}

/// A connection of HTTP/2.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) sender: http2::SendRequest<Full<Bytes>>,
    pub(super) connection: http2::Connection<TokioIo<Wire>, Full<Bytes>, TokioExecutor>,
}

impl Kept {
    /// Whether nothing has come on it, its end included. Nobody is woken for it from here on.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Http1(wire) => {
                let mut byte = [0u8; 1];
                let mut nobody = Context::from_waker(Waker::noop());
                matches!(Pin::new(wire).poll_read(&mut nobody, &mut ReadBuf::new(&mut byte)), Poll::Pending)
            }
            Self::H2(streams) => !streams.sender.is_closed(),
        }
    }

    /// About what it takes, in bytes.
    fn weight(&self) -> usize {
        match self {
            Self::Http1(Wire::Plain(_)) => 1 << 10,
            Self::Http1(Wire::Tls(_)) => 16 << 10,
            Self::H2(_) => 32 << 10,
        }
    }
}

/// How a connection was made: another one would do as well only if all of it is the same.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) check: Arc<Check>,
    pub(super) dial: Dial,
    pub(super) protocol: Protocol,
}

impl Way {
    /// Whether checks that go this way leave their connection open. Where one failure decides (`fall: 1`) they do not: a
    /// connection that was lost on the way without a word would be taken for an instance that hangs.
    pub(super) fn may_keep(&self) -> bool {
        let Check { probe, reuse, fall, .. } = &*self.check;
        *reuse && *fall > 1 && matches!(probe, Probe::Http { .. } | Probe::Grpc { .. })
    }

    fn is(&self, other: &Self) -> bool {
        let same_check = Arc::ptr_eq(&self.check, &other.check) || self.check == other.check;
        same_check && self.protocol == other.protocol && self.dial.reaches_alike(&other.dial)
    }
}

/// A kept connection and its history.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) kept: Kept,
    pub(super) way: Way,
    /// When it was opened.
    pub(super) since: Millis,
    /// Checks made on it.
    pub(super) checks: u32,
}

/// All that are kept, by the live state's id.
#[derive(Debug)]
pub(super) struct Keep {
    resting: HashMap<u64, Rest>,
    most: usize,
    weight: usize,
}

impl Keep {
    /// At most so many.
    pub(super) fn at_most(most: usize) -> Self {
        Self { resting: HashMap::new(), most, weight: 0 }
    }

    /// The connection that this endpoint's check may be made on, if one is kept and no fresh one is called for.
    pub(super) fn take(&mut self, live: &Live, way: &Way, now: Millis) -> Option<Rest> {
        let rest = self.resting.remove(&live.id)?;
        self.weight -= rest.kept.weight();
        (rest.way.is(way) && live.available() && now.since(rest.since) < AGE_MS).then_some(rest)
    }

    /// Keeps a connection for the check that comes at `next`, if it will do then and there is room.
    pub(super) fn put(&mut self, id: u64, mut rest: Rest, next: Millis) {
        let weight = rest.kept.weight();
        let has_room = self.resting.len() < self.most && self.weight + weight <= MEMORY;
        if has_room && rest.checks < CHECKS && next.since(rest.since) < AGE_MS && rest.kept.is_quiet() {
            self.weight += weight;
            if let Some(before) = self.resting.insert(id, rest) {
                self.weight -= before.kept.weight();
            }
        }
    }

    /// Closes those of endpoints that are not checked any more.
    pub(super) fn retain(&mut self, is_checked: impl Fn(u64) -> bool) {
        let Self { resting, weight, .. } = self;
        resting.retain(|id, rest| {
            let stays = is_checked(*id);
            *weight -= if stays { 0 } else { rest.kept.weight() };
            stays
        });
    }

    /// Whether none is kept, and no room is taken.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.resting.is_empty() && self.weight == 0
    }
}
