//! Copies of requests for another pool: sent and forgotten. A copy has its own bounds and its own task, is decided on
//! without waiting for anything, and nothing of it comes back: no answer, no error, no evidence about the instance.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use tokio::task::JoinSet;

use super::attempt::{Outbound, host_field};
use super::clock::Clock;
use super::exchange::{Exchange, Peer, Route};
use super::upload::{Upload, UploadBody};
use super::view::View;
use super::worker::Worker;
use crate::engine::mirror::mirrored_to;
use crate::engine::route::{Decision, FileIdx};

use crate::observe::names;
use crate::upstream::Ends;
use crate::upstream::peer::Ask;

/// What a copy carries, so that instances can tell. The Host stays what the request asks for: a name of its own (as
/// Envoy's `-shadow`) is one that virtual hosts do not know.
pub const X_POINTSMAN_MIRROR: HeaderName = HeaderName::from_static("x-pointsman-mirror");

/// Copies under way at once in one worker; more are not made. With the replay buffer's 64 KiB a body: 4 MiB.
const AT_ONCE: usize = 64;
/// A copy's whole life, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of a copy's answer so much is read, to use the connection again; above it the connection is closed.
const DISCARDED: usize = 256 * 1024;

/// One worker's copies under way. Dropped with the worker.
#[derive(Debug, Default)]
pub struct Mirrors {
    running: RefCell<JoinSet<()>>,
}

impl Mirrors {
    /// Whether there is room for one more. Forgets those that ended.
    fn has_room(&self, worker: &Worker) -> bool {
        let mut running = self.running.borrow_mut();
        while let Some(ended) = running.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                worker.metrics.word(&names::PANICS, "mirror");
            }
        }
        running.len() < AT_ONCE
    }
}

/// A copy that waits for the request's body.
#[derive(Debug)]
pub struct Copy {
    peer: Rc<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Who sent the request, for instances that are told by the PROXY protocol.
    client: Ends,
    route: Route,
}

impl Copy {
    /// A copy of a request that is about to be sent, if its rule wants one of this request.
    #[must_use]
    pub fn of(
        worker: &Worker,
        view: &View,
        exchange: &Exchange,
        (file, decision): (FileIdx, &Decision),
        outbound: &Outbound,
    ) -> Option<Self> {
        let policies = super::edit::in_force(&view.table.router.files[file as usize], decision);
        let mirror = policies.message.mirror.filter(|mirror| mirror.takes(exchange.draw))?;
        let (method, uri, headers) = outbound.head().filter(|_| !outbound.upgrades() && !outbound.is_translated())?;
        if !worker.mirrors.has_room(worker) {
            exchange.count(&names::MIRRORED, "busy");
            return None;
        }
        let now = exchange.connection().clock.now();
        let Some(endpoint) = mirrored_to(&view.table, file, decision, mirror, Some(&worker.memory), now, exchange.draw)
        else {
            exchange.count(&names::MIRRORED, "no_instance");
            return None;
        };
        let peer = worker.peers.of(view.table.endpoint(file, endpoint), &view.file(file).upstream);
        let mut headers = headers.clone();
        headers.insert(X_POINTSMAN_MIRROR, HeaderValue::from_static("true"));
        let own =
            worker.settings.host_of_instance && policies.message.rewrite.as_ref().is_none_or(|r| r.host.is_none());
        if let Some(host) = own.then(|| host_field(&peer)).flatten() {
            headers.insert(HOST, host);
        }
        let (client, route) = (exchange.connection().ends(), exchange.route()?.clone());
        Some(Self { peer, method: method.clone(), uri: uri.clone(), headers, client, route })
    }

    /// Sends the copy once the request's own way is settled; `upload` is its body, `None` for a request without one. A
    /// body that was not read whole by then, or did not fit in what is kept for retries, is not copied.
    pub fn send(self, worker: &Worker, upload: Option<&Upload>) {
        let body = match upload.map(Upload::copied) {
            None => UploadBody::default(),
            Some(Ok(body)) => body,
            Some(Err(word)) => return count(&self.route, word),
        };
        let Self { peer, method, uri, headers, client, route } = self;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let clock = Rc::clone(&worker.clock);
        worker.mirrors.running.borrow_mut().spawn_local(async move {
            let _load = Load::new(&peer);
            let ended = tokio::time::timeout(DEADLINE, exchange_discarded(&peer, client, request, &clock)).await;
            count(&route, ended.map_or("timeout", |answered| if answered { "answered" } else { "failed" }));
        });
    }
}

/// Counts a copy at its endpoint while it lives: load, and no evidence.
struct Load<'p>(&'p Peer);

impl<'p> Load<'p> {
    fn new(peer: &'p Peer) -> Self {
        peer.live.begin();
        Self(peer)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.live.abandon();
        super::queue::call_next(&self.0.live);
    }
}

fn count(route: &Route, word: &'static str) {
    route.series.count(&names::MIRRORED, route.key, word, || route.names.names(None));
}

/// One exchange whose answer nobody wants. True when a head came.
async fn exchange_discarded(peer: &Peer, client: Ends, request: Request<UploadBody>, clock: &Clock) -> bool {
    let now = clock.read_millis();
    let ask = Ask { protocol: peer.protocol, repeatable: false, tunnel: false, client: Some(client) };
    let mut link = match peer.take(&ask, now) {
        Some(link) => link,
        None => match peer.connect(&ask, DEADLINE, now).await {
            Ok(link) => link,
            Err(_) => return false,
        },
    };
    let Ok(response) = link.send(|| request, peer.is_encrypted()).await else { return false };
    let mut body = response.into_body();
    let mut read = 0;
    loop {
        match poll_fn(|cx| link.poll_body(&mut body, cx)).await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, bytes::Bytes::len),
            Some(Err(_)) => return true,
            None => break,
        }
        if read > DISCARDED {
            return true;
        }
    }
    peer.give_back(link, clock.read_millis());
    true
}
