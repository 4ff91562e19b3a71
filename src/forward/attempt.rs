//! One try at one instance: a connection, the request on it, the answer's head.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::exchange::{Exchange, Peer};
use super::headers::is_plain_coding;
use super::retry::{Cause, Failure};
use super::survey::Survey;
use super::upload::{Upload, UploadBody};
use super::wait::{Elapsed, after, until};
use crate::engine::policy::Timeouts;
use crate::engine::time::Millis;
use crate::observe::metrics::WorkerMetrics;
use crate::upstream::Link;

/// A request on its way out, ready to be sent more than once where that is allowed.
#[derive(Debug)]
pub struct Outbound {
    method: Method,
    uri: Uri,
    /// Taken by a try; given back by one that wrote nothing.
    headers: Option<HeaderMap>,
    /// Kept while the request may be repeated after it was written.
    saved: Option<Vec<(HeaderName, HeaderValue)>>,
    upload: Option<Rc<Upload>>,
    /// It asks for a change of protocol.
    upgrade: bool,
}

/// An answer's head, and the connection that its body comes on.
#[derive(Debug)]
pub struct Answered {
    /// The head.
    pub response: Response<Incoming>,
    /// Which fields it has.
    pub seen: Survey,
    /// The connection.
    pub link: Box<Link<UploadBody>>,
}

/// Limits of one try.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The rule's.
    pub timeouts: Timeouts,
    /// The end of the whole exchange.
    pub total: Millis,
}

impl Outbound {
    /// A request with its head edited.
    #[must_use]
    pub fn new(method: Method, uri: Uri, headers: HeaderMap, upload: Option<Rc<Upload>>, upgrade: bool) -> Self {
        let idempotent = method.is_idempotent() && !upgrade;
        let saved = idempotent.then(|| headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
        Self { method, uri, headers: Some(headers), saved, upload, upgrade }
    }

    /// Whether sending it again after it was written is safe and possible.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.saved.is_some() && self.upload.as_ref().is_none_or(|upload| upload.is_repeatable())
    }

    /// Whether it can be sent (again) after a try that failed like this.
    #[must_use]
    pub fn can_follow(&self, failure_sent: bool) -> bool {
        if failure_sent { self.is_repeatable() } else { self.headers.is_some() || self.is_repeatable() }
    }

    /// The head as it will be sent; `None` once a try has taken it.
    #[must_use]
    pub fn head(&self) -> Option<(&Method, &Uri, &HeaderMap)> {
        Some((&self.method, &self.uri, self.headers.as_ref()?))
    }

    /// Whether it asks for a change of protocol.
    #[must_use]
    pub fn upgrades(&self) -> bool {
        self.upgrade
    }

    /// Lets go of what only another try would need.
    pub fn settle(&mut self) {
        self.saved = None;
        if let Some(upload) = &self.upload {
            upload.forget();
        }
    }

    /// The request, once more. `None`: its head is gone.
    fn request(&mut self, host: Option<HeaderValue>) -> Option<Request<UploadBody>> {
        let mut headers = match (self.headers.take(), &self.saved) {
            (Some(headers), _) => headers,
            (None, Some(saved)) => {
                let mut headers = HeaderMap::with_capacity(saved.len() + 1);
                saved.iter().for_each(|(name, value)| {
                    headers.append(name.clone(), value.clone());
                });
                headers
            }
            (None, None) => return None,
        };
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        let mut request = Request::new(UploadBody::new(self.upload.as_ref()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Some(request)
    }

    fn give_back(&mut self, request: Option<Request<UploadBody>>) -> bool {
        let unsent = request.is_some();
        self.headers = request.map(|request| request.into_parts().0.headers);
        unsent
    }

    fn fault(&self) -> Option<Detail> {
        self.upload.as_ref().and_then(|upload| upload.fault())
    }
}

/// One try. A pooled connection that proves dead costs nothing: the request is repeated once on a fresh one where that
/// is safe (nothing was written, or nothing came back and the request is idempotent).
pub async fn attempt(
    exchange: &mut Exchange,
    outbound: &mut Outbound,
    limits: Limits,
    metrics: &WorkerMetrics,
    host_of_instance: bool,
) -> Result<Answered, Failure> {
    let connection = Rc::clone(exchange.connection());
    let Some(peer) = exchange.peer().cloned() else {
        return Err(Failure { detail: Detail::Internal, cause: None, sent: false });
    };
    let host = if host_of_instance { host_field(&peer) } else { None };
    let started = connection.clock.micros();
    let pooled = peer.take(connection.clock.now(), outbound.is_repeatable());
    let mut pooled = pooled.inspect(|_| metrics.cells().upstream_reused.add(1));
    loop {
        let idle = pooled.as_ref().map(|link| connection.clock.now().since(link.idle_since()));
        let link = match pooled.take() {
            Some(link) => link,
            None => {
                let link = connect(&connection, &peer, limits).await?;
                metrics.cells().upstream_opened.add(1);
                exchange.connect_us = Some(connection.clock.read().saturating_sub(started));
                link
            }
        };
        match send(&connection, link, outbound, limits, host.clone()).await {
            Ok(answered) => {
                exchange.first_byte_us = Some(connection.clock.read().saturating_sub(started));
                return judge_head(answered, outbound.upgrade);
            }
            Err(failure) => {
                let is_dead = failure.cause == Some(Cause::Reset);
                let Some(idle) = idle.filter(|_| is_dead && outbound.can_follow(failure.sent)) else {
                    return Err(failure);
                };
                if !failure.sent {
                    peer.was_closed(idle);
                }
            }
        }
    }
}

async fn connect(connection: &Connection, peer: &Peer, limits: Limits) -> Result<Box<Link<UploadBody>>, Failure> {
    let deadline = after(connection.clock.now(), limits.timeouts.connect).min(limits.total);
    let failed = |detail| Failure { detail, cause: Some(Cause::Connect), sent: false };
    match until(connection, deadline, peer.connect()).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(error)) if is_ours(&error) => Err(Failure { detail: Detail::Overloaded, cause: None, sent: false }),
        Ok(Err(_)) => Err(failed(Detail::ConnectFailed)),
        Err(Elapsed) => Err(failed(Detail::UpstreamTimeout)),
    }
}

async fn send(
    connection: &Connection,
    mut link: Box<Link<UploadBody>>,
    outbound: &mut Outbound,
    limits: Limits,
    host: Option<HeaderValue>,
) -> Result<Answered, Failure> {
    let internal = Failure { detail: Detail::Internal, cause: None, sent: false };
    let request = outbound.request(host).ok_or(internal)?;
    let upload = outbound.upload.clone();
    let no_upload = after(connection.clock.now(), limits.timeouts.first_byte);
    let replied = {
        let mut reply = pin!(link.send(request));
        poll_fn(|cx| {
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                return Poll::Ready(Some(reply));
            }
            let deadline = upload
                .as_ref()
                .map_or(no_upload, |upload| upload.deadline(limits.timeouts.first_byte, limits.timeouts.idle));
            let deadline = deadline.min(limits.total);
            if connection.clock.now() >= deadline {
                return Poll::Ready(None);
            }
            connection.instance_deadline.set(deadline);
            Poll::Pending
        })
        .await
    };
    connection.instance_deadline.set(NEVER);
    connection.upload_deadline.set(NEVER);
    match replied {
        Some(Ok(response)) => {
            let seen = Survey::of(response.headers());
            Ok(Answered { response, seen, link })
        }
        Some(Err(unanswered)) => {
            let sent = !outbound.give_back(unanswered.request);
            Err(outbound
                .fault()
                .map_or_else(|| broken(&unanswered.error, sent), |detail| Failure { detail, cause: None, sent }))
        }
        None => Err(Failure { detail: Detail::UpstreamTimeout, cause: Some(Cause::Timeout), sent: true }),
    }
}

/// The instance's own address as a Host.
pub fn host_field(peer: &Peer) -> Option<HeaderValue> {
    let instance = &peer.instance;
    let bracketed = instance.host.contains(':') && !instance.host.starts_with('[');
    let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
    HeaderValue::try_from(format!("{open}{}{close}:{}", instance.host, instance.addr.port())).ok()
}

/// Why there was no answer on an established connection.
fn broken(error: &hyper::Error, sent: bool) -> Failure {
    let detail = if error.is_parse() { Detail::UpstreamMalformed } else { Detail::UpstreamReset };
    Failure { detail, cause: Some(Cause::Reset), sent }
}

/// What hyper lets pass and we do not: a coding that cannot be passed on, a change of protocol that nobody asked for.
fn judge_head(answered: Answered, upgrade: bool) -> Result<Answered, Failure> {
    let unasked = answered.response.status() == StatusCode::SWITCHING_PROTOCOLS && !upgrade;
    if unasked || !is_plain_coding(answered.response.headers(), answered.seen) {
        return Err(Failure { detail: Detail::UpstreamMalformed, cause: Some(Cause::Reset), sent: true });
    }
    Ok(answered)
}

/// The system refused us, not the instance: no descriptors, ports or memory. It says nothing about the instance.
fn is_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, OutOfMemory};
    /// EMFILE, ENFILE, ENOBUFS on Linux; they have no stable `ErrorKind`.
    const EXHAUSTED: [i32; 3] = [24, 23, 105];
    matches!(error.kind(), AddrNotAvailable | OutOfMemory)
        || error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code))
}
