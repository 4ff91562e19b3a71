//! One try at one instance: a connection, the request on it, the answer's head.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::exchange::Peer;
use super::grpc::{self, Call};
use super::grpc_web;
use super::headers::is_plain_coding;
use super::retry::{Cause, Failure};
use super::survey::Survey;
use super::upload::{Upload, UploadBody};
use super::wait::{Elapsed, after, until};
use crate::engine::policy::Timeouts;
use crate::engine::time::Millis;
use crate::observe::metrics::WorkerMetrics;
use crate::upstream::dial::is_ours;
use crate::upstream::link::{Fault, Unanswered};
use crate::upstream::pace::SMALL;
use crate::upstream::peer::Ask;
use crate::upstream::{Link, Received};

/// A request on its way out, ready to be sent more than once where that is allowed.
#[derive(Debug)]
pub struct Outbound {
    method: Method,
    uri: Uri,
    /// Taken by a try; given back by one that wrote nothing.
    headers: Option<HeaderMap>,
    /// Kept while the request may be repeated after it was written.
    saved: Option<Rc<[(HeaderName, HeaderValue)]>>,
    upload: Option<Rc<Upload>>,
    /// It asks for a change of protocol.
    upgrade: bool,
    /// It may be sent again after it was written, as far as its method goes.
    idempotent: bool,
    /// The call of gRPC that it is.
    call: Option<Call>,
}

/// An answer's head, and the connection that its body comes on.
#[derive(Debug)]
pub struct Answered {
    /// The head.
    pub response: Response<Received>,
    /// Which fields it has.
    pub seen: Survey,
    /// The connection.
    pub link: Link<UploadBody>,
    /// The call of gRPC that it answers.
    pub call: Option<Call>,
    /// It has no body, whatever its fields say (RFC 9110, 6.4.1).
    pub bodiless: bool,
}

impl Answered {
    /// The status of a call that is answered without a message.
    #[must_use]
    pub fn call_status(&self) -> Option<u8> {
        self.call.and_then(|_| grpc::status(self.response.headers()))
    }
}

/// Limits of one try.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The rule's.
    pub timeouts: Timeouts,
    /// The end of the whole exchange.
    pub total: Millis,
    /// For each try, in milliseconds; 0: none.
    pub per_try: u64,
    /// The end of the try at hand, but for the time in which its client was waited for.
    pub tried: Millis,
}

/// A try that came to its end: an answer's head, or none.
pub type Ended = Result<Answered, Failure>;

/// How long parts of a try took; microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Connecting; `None`: the connection was pooled.
    pub connect_us: Option<u64>,
    /// From its start to the answer's head.
    pub first_byte_us: Option<u64>,
}

impl Outbound {
    /// A request with its head edited.
    #[must_use]
    pub fn new(method: Method, uri: Uri, headers: HeaderMap, upload: Option<Rc<Upload>>, upgrade: bool) -> Self {
        let idempotent = method.is_idempotent() && !upgrade;
        let saved = idempotent.then(|| headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
        Self { method, uri, headers: Some(headers), saved, upload, upgrade, idempotent, call: None }
    }

    /// Whether head and body are changed on the way to an instance that speaks HTTP/2: a call of gRPC-Web.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        matches!(self.call, Some(Call::Web | Call::WebText))
    }

    /// It is a call of gRPC. `keep`: it may be made again when the instance answers with a status that the rules name.
    pub fn calls(&mut self, call: Call, keep: bool) {
        self.call = Some(call);
        if keep && self.saved.is_none() {
            let headers = self.headers.iter().flatten();
            self.saved = Some(headers.map(|(name, value)| (name.clone(), value.clone())).collect());
        }
    }

    /// Whether all of it is still here, be it safe to send it again or not.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.saved.is_some() && self.upload.as_ref().is_none_or(|upload| upload.is_repeatable())
    }

    /// Whether sending it again after it was written is safe and possible.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.idempotent && self.is_kept()
    }

    /// Whether it may be sent twice at the same time.
    #[must_use]
    pub fn is_bodiless_and_repeatable(&self) -> bool {
        self.idempotent && self.saved.is_some() && self.upload.is_none()
    }

    /// The same request once more, to be sent beside this one. Only where it is repeatable and has no body.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self {
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: None,
            saved: self.saved.clone(),
            upload: None,
            upgrade: false,
            idempotent: self.idempotent,
            call: self.call,
        }
    }

    /// Whether it can be sent (again) after a try that failed like this.
    #[must_use]
    pub fn can_follow(&self, failure_sent: bool) -> bool {
        let is_whole = || self.upload.as_ref().is_none_or(|upload| upload.is_repeatable());
        if failure_sent { self.is_repeatable() } else { self.headers.is_some() && is_whole() || self.is_kept() }
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

    /// The request, once more. Only where its head is here. `over_h2`: it stays here too, because the connection does
    /// not give it back.
    fn request(&mut self, host: Option<&HeaderValue>, over_h2: bool) -> Request<UploadBody> {
        let mut headers = self.headers.take().unwrap_or_else(|| {
            let saved = self.saved.as_deref().unwrap_or_default();
            let mut headers = HeaderMap::with_capacity(saved.len() + 1);
            saved.iter().for_each(|(name, value)| {
                headers.append(name.clone(), value.clone());
            });
            headers
        });
        if over_h2 && self.saved.is_none() {
            self.headers = Some(headers.clone());
        }
        if let Some(host) = host {
            headers.insert(HOST, host.clone());
        }
        let mut body = UploadBody::new(self.upload.as_ref());
        if let (true, Some(call @ (Call::Web | Call::WebText))) = (over_h2, self.call) {
            grpc_web::towards_instance(&mut headers);
            body = if call == Call::WebText { body.decoded() } else { body };
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        request
    }

    /// Takes back what was not sent. Whether it was not.
    fn give_back(&mut self, unanswered: Unanswered<UploadBody>) -> bool {
        let unsent = unanswered.unprocessed || unanswered.request.is_some();
        if let Some(request) = unanswered.request {
            self.headers = Some(request.into_parts().0.headers);
        }
        unsent
    }

    fn fault(&self) -> Option<Detail> {
        self.upload.as_ref().and_then(|upload| upload.fault())
    }
}

/// One try at an endpoint. A pooled connection that proves dead costs nothing: the request is repeated once on a fresh
/// one where that is safe (nothing was written, or nothing came back and the request is idempotent).
pub async fn try_at(
    connection: &Connection,
    peer: &Peer,
    outbound: &mut Outbound,
    limits: &Limits,
    metrics: &WorkerMetrics,
    host_of_instance: bool,
) -> (Ended, Timing) {
    let mut timing = Timing::default();
    let now = connection.clock.now();
    let limits = Limits { tried: after(now, limits.per_try), ..*limits };
    let host = if host_of_instance { host_field(peer).map(Box::new) } else { None };
    let ended = sent(connection, peer, outbound, &limits, metrics, host.as_deref(), &mut timing).await;
    (ended, timing)
}

async fn sent(
    connection: &Connection,
    peer: &Peer,
    outbound: &mut Outbound,
    limits: &Limits,
    metrics: &WorkerMetrics,
    host: Option<&HeaderValue>,
    timing: &mut Timing,
) -> Ended {
    let started = connection.clock.micros();
    let client = Some(connection.ends());
    let ask = Ask { protocol: peer.protocol, repeatable: outbound.is_repeatable(), tunnel: outbound.upgrade, client };
    let encrypted = peer.is_encrypted();
    let pooled = peer.take(&ask, connection.clock.now());
    let mut pooled = pooled.inspect(|_| metrics.cells().upstream_reused.add(1));
    loop {
        let idle = pooled.as_ref().map(|link| link.idle(connection.clock.now()));
        let link = match pooled.take() {
            Some(link) => link,
            None => {
                let link = Box::pin(connect(connection, peer, &ask, limits)).await?;
                metrics.cells().upstream_opened.add(1);
                timing.connect_us = Some(connection.clock.read().saturating_sub(started));
                link
            }
        };
        match send(connection, link, outbound, limits, host, encrypted).await {
            Ok(answered) => {
                timing.first_byte_us = Some(connection.clock.read().saturating_sub(started));
                return judge_head(answered, outbound.upgrade);
            }
            Err(failure) => {
                // What came back as garbage came from a connection that lives.
                let is_dead = failure.detail == Detail::UpstreamReset;
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

async fn connect(
    connection: &Connection,
    peer: &Peer,
    ask: &Ask,
    limits: &Limits,
) -> Result<Link<UploadBody>, Failure> {
    let now = connection.clock.now();
    let deadline = after(now, limits.timeouts.connect).min(limits.tried).min(limits.total);
    let failed = |detail| Failure { detail, cause: Some(Cause::Connect), sent: false };
    match until(connection, deadline, peer.connect(ask, Duration::from_millis(limits.timeouts.connect), now)).await {
        Ok(Ok(link)) => Ok(link),
        // All that may be open are in use: it says nothing about the instance, and another one may have room.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ResourceBusy => Err(failed(Detail::Overloaded)),
        Ok(Err(error)) if is_ours(&error) => Err(Failure { detail: Detail::Overloaded, cause: None, sent: false }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(failed(Detail::UpstreamTimeout)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(failed(Detail::UpstreamTls)),
        Ok(Err(_)) => Err(failed(Detail::ConnectFailed)),
        Err(Elapsed) => Err(failed(Detail::UpstreamTimeout)),
    }
}

async fn send(
    connection: &Connection,
    mut link: Link<UploadBody>,
    outbound: &mut Outbound,
    limits: &Limits,
    host: Option<&HeaderValue>,
    encrypted: bool,
) -> Result<Answered, Failure> {
    if outbound.headers.is_none() && outbound.saved.is_none() {
        return Err(Failure::INTERNAL);
    }
    let over_h2 = link.is_h2();
    link.read_at_most(connection.room_for_answer().unwrap_or(SMALL));
    let upload = outbound.upload.clone();
    // Only there can a call be a stream. A mere field does not lift the limits of a body.
    if let Some(upload) =
        upload.as_ref().filter(|_| over_h2 && connection.is_stream && outbound.call == Some(Call::Native))
    {
        upload.progress().be_patient(limits.timeouts.stream_idle);
    }
    let no_upload = after(connection.clock.now(), limits.timeouts.first_byte);
    let replied = {
        let mut reply = pin!(link.send(|| outbound.request(host, over_h2), encrypted));
        poll_fn(|cx| {
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                return Poll::Ready(Some(reply));
            }
            let deadline = match &upload {
                None => no_upload.min(limits.tried),
                Some(upload) => upload
                    .progress()
                    .deadline(limits.timeouts.first_byte, limits.timeouts.idle)
                    .min(upload.progress().prolonged(limits.tried)),
            };
            let deadline = deadline.min(limits.total);
            if connection.clock.now() >= deadline {
                return Poll::Ready(None);
            }
            connection.instance_deadline.set(deadline);
            if upload.as_ref().is_none_or(|upload| upload.is_whole()) {
                connection.turn.rests();
            }
            Poll::Pending
        })
        .await
    };
    connection.instance_deadline.set(NEVER);
    connection.upload_deadline.set(NEVER);
    match replied {
        Some(Ok(response)) => {
            let seen = Survey::of(response.headers());
            let bodiless = outbound.method == Method::HEAD
                || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            Ok(Answered { response, seen, link, call: outbound.call, bodiless })
        }
        Some(Err(unanswered)) => {
            let is_malformed = unanswered.fault.is_malformed();
            let unfit = matches!(unanswered.fault, Fault::Unfit);
            let sent = !outbound.give_back(unanswered);
            let fault = outbound.fault().or(unfit.then_some(Detail::BadRequest));
            Err(fault.map_or_else(|| broken(is_malformed, sent), |detail| Failure { detail, cause: None, sent }))
        }
        // All the time went by waiting for a stream that the instance allows: as if no connection had come about.
        None if link.is_unsent() => {
            Err(Failure { detail: Detail::UpstreamTimeout, cause: Some(Cause::Connect), sent: false })
        }
        // The instance had no time that the client did not take.
        None if upload.is_some_and(|upload| upload.progress().gives_up()) => {
            Err(Failure { detail: Detail::ClientTimeout, cause: None, sent: true })
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
fn broken(is_malformed: bool, sent: bool) -> Failure {
    let detail = if is_malformed { Detail::UpstreamMalformed } else { Detail::UpstreamReset };
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
