//! One request through its phases: limits, labels, decide, pick, attempt, retry, respond; the account closes itself.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::header::{SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body;

use super::answer::{Refusal, accepts_json, fixed, refusal, refuse};
use super::attempt::{Limits, Outbound};
use super::authority;
use super::body::{AnswerBody, Source};
use super::connection::{Connection, NEVER};
use super::edit::{Changes, in_force};
use super::error::Detail;
use super::exchange::{Exchange, Route};
use super::forwarded;
use super::grpc::{self, Call};
use super::headers::{self, X_REQUEST_ID};
use super::hedge::{Trying, attempt};
use super::https;
use super::judge::judged;
use super::limit;
use super::mirror::Copy;
use super::queue::place;
use super::respond;
use super::retry::{Cause, Trouble, backoff};
use super::survey::Survey;
use super::traced;
use super::trailers::Taken;
use super::upload::Upload;
use super::validate::{Target, check, matched_form, origin_form};
use super::view::View;
use super::wait::{after, until};
use super::worker::Worker;
use crate::engine::balance::Picked;
use crate::engine::policy::Retry;
use crate::engine::request::RequestView;
use crate::engine::route::Detail::NoRoutableInstance;
use crate::engine::route::{Decision, FileIdx, Outcome, PoolSlot, RouterFile, cookie, decide};
use crate::engine::trace::NoTrace;
use crate::engine::tries::Tries;
use crate::observe::memory::UPLOAD;
use crate::observe::metrics::RouteKey;
use crate::observe::names;
use crate::upstream::Received;

/// Answers one request. Whatever happens there is an answer, or the client is gone and this future is dropped.
///
/// All that needs no waiting is done at once, so that the future holds none of it: it is moved into the connection or a
/// task, and thousands of them wait at the same time.
pub fn answer(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Received>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> {
    let mut exchange = Exchange::begin(&worker, &connection);
    exchange.hold_head(request.headers());
    let mut json = false;
    // A panic of ours costs this request and no other.
    let mut course = catch_unwind(AssertUnwindSafe(|| prepared(&worker, &mut exchange, &mut json, request)));
    async move {
        let outcome = match &mut course {
            Ok(Ok(Course::Forward(ready))) => {
                let mut forwarding = pin!(forwarded_on(&worker, &mut exchange, ready));
                poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| forwarding.as_mut().poll(cx))) {
                    Ok(polled) => polled.map(Some),
                    Err(_) => Poll::Ready(None),
                })
                .await
            }
            Ok(Ok(Course::Answered(response))) => response.take().map(Ok),
            Ok(Err(refusal)) => Some(Err(*refusal)),
            Err(_) => None,
        };
        Ok(closed(&worker, exchange, outcome, json))
    }
}

/// The answer as the client gets it, with the account that is closed with its body. `outcome`: `None` after a panic.
fn closed(
    worker: &Worker,
    mut exchange: Exchange,
    outcome: Option<Result<Response<Source>, Refusal>>,
    json: bool,
) -> Response<AnswerBody> {
    let connection = Rc::clone(exchange.connection());
    let outcome = outcome.unwrap_or_else(|| {
        worker.metrics.word(&names::PANICS, "request");
        Err(Detail::Internal.into())
    });
    let mut response = outcome.unwrap_or_else(|refusal| {
        let early = refusal.detail == Detail::NoRoutableInstance && !worker.is_ready();
        let refusal = if early { Detail::NotReady.into() } else { refusal };
        exchange.detail = Some(refusal.detail);
        exchange.count(&names::ERRORS, refusal.detail.word());
        if refusal.detail.closes() {
            connection.closing.set(true);
            connection.lingers.set(true);
        }
        match exchange.call {
            Some(call) => grpc::refuse(refusal, call, &worker.settings),
            None => refuse(refusal, json, &worker.settings),
        }
    });
    exchange.status = response.status().as_u16();
    if exchange.call.is_some() && exchange.call_status.is_none() {
        exchange.call_status = grpc::status(response.headers());
    }
    https::promise(response.headers_mut(), &exchange);
    if worker.settings.debug_headers {
        respond::add_debug(response.headers_mut(), &exchange);
    }
    if let Some(traced) = exchange.traced.take() {
        traced.add(response.headers_mut(), &exchange);
    }
    exchange.admission.tell(response.headers_mut());
    let mut response = response.map(|source| AnswerBody::new(source, exchange));
    if connection.closing.get() && !connection.is_stream {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "nearly all are forwarded, and there is one of it a request")]
enum Course {
    /// An instance answers it.
    Forward(Ready),
    /// A rule does; taken once.
    Answered(Option<Response<Source>>),
}

impl Course {
    fn answered(response: Response<Source>) -> Self {
        Self::Answered(Some(response))
    }
}

/// A request that is decided, as instances get it.
struct Ready {
    /// Taken by who forwards it, and let go of when no other try can follow.
    view: Option<Rc<View>>,
    file: FileIdx,
    decision: Decision,
    changes: Option<Box<Changes>>,
    outbound: Outbound,
    limits: Limits,
    host_of_instance: bool,
}

/// The phases that wait for nobody, in order.
fn prepared(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    json: &mut bool,
    request: Request<Received>,
) -> Result<Course, Refusal> {
    // Limits: what may not be passed on at all.
    let (head, body) = request.into_parts();
    let seen = Survey::of(&head.headers);
    *json = seen.has(Survey::ACCEPT) && accepts_json(&head.headers);
    exchange.call = if seen.has(Survey::CONTENT_TYPE) { grpc::call(&head.headers) } else { None };
    // Of HTTP/2, Host was put in place of `:authority`, which is no field.
    if head.headers.len() > worker.settings.fields + usize::from(exchange.connection().is_stream) {
        return Err(Refusal::from(Detail::HeadTooLarge));
    }
    let target = check(&head, seen, worker.settings.target_size, &worker.settings.paths)?;
    authority::agrees(exchange.connection(), &target.host)?;
    limit::enter(worker, exchange, &target.path)?;
    exchange.scheme = forwarded::scheme(&head.headers, seen, exchange.connection(), &worker.settings);
    // A proxy in front may have taken the encryption off: that client is where it should be.
    if let Some(port) = exchange.connection().entrance.redirect
        && exchange.scheme == "http"
    {
        let response = https::redirect(&head.uri, &target.host, port)?;
        return Ok(Course::answered(as_called(response, exchange.call)));
    }

    exchange.client = forwarded::client(&head.headers, seen, exchange.connection(), &worker.settings);

    // Decide: file, rule, pool.
    let view = worker.view();
    let (decision, changes) = decided(worker, &view, exchange, &head, &target, seen);
    note(worker, &view, exchange, &head, &target, &decision);
    let mut changes = changes?;
    exchange.hsts_is_ruled = changes.as_ref().is_some_and(|changes| changes.rule_on(&STRICT_TRANSPORT_SECURITY));
    limit::admit(exchange, &view, &decision, changes.as_deref())?;
    let file = match (decision.file, decision.outcome) {
        (Some(file), Outcome::Pool(_)) => file,
        // Nobody is routable, but somebody may wait to prove that he is well again.
        (Some(file), Outcome::Refuse { detail: NoRoutableInstance, .. }) => file,
        (_, Outcome::Refuse { status, detail }) => return Err(refusal(status, detail.into())),
        (_, Outcome::Redirect | Outcome::Respond) => {
            return own_rule(&view, &decision, exchange.call, changes.as_deref()).map(Course::answered);
        }
        (None, Outcome::Pool(_)) => return Err(Detail::Internal.into()),
    };
    let policies = in_force(&view.table.router.files[file as usize], &decision);
    let budget = &view.file(file).budget;
    budget.request(worker.limits.worker, exchange.connection().clock.now());

    let timeouts = match exchange.call {
        Some(_) => grpc::limits(policies.timeouts, &head.headers),
        None => policies.timeouts,
    };

    // The request as instances get it.
    drop(target);
    let router_file = &view.table.router.files[file as usize];
    let mut outbound = outbound(worker, exchange, head, body, seen, router_file, changes.as_deref_mut());
    // An instance of HTTP/1.1 wants one even where a client of HTTP/1.0 named none.
    let host_of_instance = (worker.settings.host_of_instance || !seen.has(Survey::HOST))
        && !changes.as_ref().is_some_and(|c| c.has_host());
    let total = after(exchange.connection().clock.now(), timeouts.total);
    if timeouts.total != policies.timeouts.total {
        exchange.own_deadline.set(total);
    }
    let limits = Limits { timeouts, total, per_try: policies.retry.per_try, tried: NEVER };
    if let Some(call) = exchange.call {
        outbound.calls(call, policies.retry.grpc != 0);
    }
    Ok(Course::Forward(Ready { view: Some(view), file, decision, changes, outbound, limits, host_of_instance }))
}

/// The phases that wait, in order.
async fn forwarded_on(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    ready: &mut Ready,
) -> Result<Response<Source>, Refusal> {
    let held = ready.view.take().ok_or(Refusal::from(Detail::Internal))?;
    let (view, file, limits) = (&held, ready.file, &ready.limits);
    let Ready { decision, changes, outbound, .. } = ready;
    let policies = in_force(&view.table.router.files[file as usize], decision);
    let trying = &Trying { worker, view, file, policies, limits, host_of_instance: ready.host_of_instance };

    // Pick, attempt; retry where it is safe, wanted and within the budget.
    let mut tries = Tries::new(&view.table, file, decision, exchange.draw, Some(&worker.memory));
    let may_retry = policies.retry.attempts > 1 && outbound.is_repeatable();
    let mut picked = tries
        .first(exchange.connection().clock.now(), may_retry)
        .map_err(|(status, detail)| refusal(status, detail.into()))?;
    let mut copy = match policies.message.mirror {
        Some(_) => Copy::of(worker, view, exchange, (file, decision), outbound).map(Box::new),
        None => None,
    };
    if exchange.upload.is_none()
        && let Some(copy) = copy.take()
    {
        copy.send(worker, None);
    }
    let answered = loop {
        route(exchange, view, decision, Some(tries.pool));
        let on = match place(trying, exchange, &mut picked, &tries).await {
            Ok(on) => on,
            // The whole pool is full: the next one may have room.
            Err(full) => {
                picked = tries.next_pool(exchange.connection().clock.now()).ok_or(full)?;
                continue;
            }
        };
        tries.note(picked);
        exchange.trying(on, picked.level);
        let result;
        (result, picked) = attempt(trying, exchange, outbound, picked, &mut tries).await;
        let Some(trouble) = judged(exchange, &result, picked, &policies.retry) else { break result };
        let now = exchange.connection().clock.now();
        let last = exchange.attempts + 1 >= policies.retry.attempts;
        let again = may_follow(exchange, trouble, trying, outbound)
            .then(|| tries.next(now, last, trouble.cause == Cause::Connect))
            .flatten();
        // Who was made to prove an endpoint gets another try whatever the budget says; one permit at a time bounds it.
        let affordable = |_: &Picked| picked.probe || is_affordable(exchange, &policies.retry);
        let Some(next) = again.filter(affordable) else { break result };
        exchange.count(&names::RETRIES, trouble.cause.word());
        drop(result);
        pause(exchange, limits).await;
        picked = next;
    };

    if let Some(copy) = copy {
        copy.send(worker, exchange.upload.as_deref());
    }
    let answered = answered?;

    // Respond. No other try follows: from here on no table is held.
    outbound.settle();
    exchange.call_status = answered.call_status();
    let cookie = decision.mint.map(|mint| {
        let name = &view.table.router.files[file as usize].cookie;
        cookie::set_cookie_value(name, &mint, exchange.scheme == "https")
    });
    drop(held);
    let mut response = if respond::is_ready(&answered) {
        respond::pass_on(exchange, worker, answered, limits)
    } else {
        Box::pin(respond::pass_on_later(exchange, worker, answered, limits)).await?
    };
    if let Some(changes) = changes {
        changes.answer(response.headers_mut());
    }
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Files, rules and splits, and what the rule changes; nothing is picked yet.
fn decided(
    worker: &Worker,
    view: &View,
    exchange: &mut Exchange,
    head: &Parts,
    target: &Target<'_>,
    seen: Survey,
) -> (Decision, Result<Option<Box<Changes>>, Detail>) {
    let connection = Rc::clone(exchange.connection());
    let tls = connection.tls.as_ref();
    let router = &*view.table.router;
    let request = RequestView {
        method: &head.method,
        scheme: exchange.scheme,
        host: &target.host,
        path: &target.path,
        query: head.uri.query(),
        headers: &head.headers,
        client: exchange.client,
        sni: tls.and_then(|tls| tls.sni.as_deref()),
        san: tls.map_or(&[], |tls| &tls.san),
        trusted: router.trusts(&target.host, &target.path, connection.sender()),
    };
    let scratch = &mut worker.scratch.borrow_mut();
    let decision = decide(&*view.table, &request, exchange.draw, scratch, &mut NoTrace);
    if seen.has(Survey::DEBUG_TOKEN) {
        let now = connection.clock.now();
        exchange.traced.replace(traced::begin(worker, &view.table, exchange, &request, now));
    }
    let changes = Changes::of(view, &decision, &request, scratch);
    if let Some(watch) = &worker.watch {
        let sent = head.uri.path_and_query().map_or("/", |sent| sent.as_str());
        watch.decided(exchange, view, &request, sent, &decision);
    }
    exchange.admission.key = limit::key(router, &decision, &request, scratch, worker.limits.book.seeds());
    (decision, changes)
}

/// Notes in the account what is known before a pick.
fn note(worker: &Worker, view: &View, exchange: &mut Exchange, head: &Parts, target: &Target<'_>, decision: &Decision) {
    if worker.access_log.is_some() {
        let sent = head.uri.path_and_query().map_or("/", |sent| sent.as_str());
        exchange.note_head(&head.method, &target.host, sent, &head.headers);
    }
    if decision.file.is_some() {
        route(exchange, view, decision, None);
    }
    if decision.rerouted {
        exchange.count(&names::SPLIT_REROUTED, "");
    }
}

/// Notes where it goes. `pool`: as compiled, once there is a choice.
pub(super) fn route(exchange: &mut Exchange, view: &View, decision: &Decision, pool: Option<PoolSlot>) {
    let Some(file) = decision.file else { return };
    let key = RouteKey::new(decision.file, decision.rule, pool);
    exchange.routed(Route {
        file: Rc::clone(view.file(file)),
        series: Rc::clone(view.series()),
        key,
        names: view.names(key, decision, pool),
        generation: view.table.generation,
        rerouted: decision.rerouted,
    });
}

/// A redirect or a text that the rule gives itself.
fn own_rule(
    view: &View,
    decision: &Decision,
    call: Option<Call>,
    changes: Option<&Changes>,
) -> Result<Response<Source>, Refusal> {
    let file = decision.file.map(|file| &view.table.router.files[file as usize]);
    let rule = file.zip(decision.rule).map(|(file, rule)| &file.rules[rule as usize]);
    let response = rule.and_then(|rule| fixed(&rule.action)).ok_or(Refusal::from(Detail::Internal))?;
    let mut response = as_called(response, call);
    if let Some(changes) = changes {
        changes.answer(response.headers_mut());
    }
    Ok(response)
}

/// An answer of ours as who asked understands it.
fn as_called(response: Response<Source>, call: Option<Call>) -> Response<Source> {
    let Some(call) = call else { return response };
    grpc::own_rule(response.status(), response.body().text(), call)
}

/// The request as instances get it.
fn outbound(
    worker: &Worker,
    exchange: &mut Exchange,
    head: Parts,
    body: Received,
    seen: Survey,
    file: &RouterFile,
    mut changes: Option<&mut Changes>,
) -> Outbound {
    let settings = &worker.settings;
    let connection = Rc::clone(exchange.connection());
    let upgrade = headers::wanted_upgrade(&head, seen, &settings.upgrades);
    let upgrades = upgrade.is_some();
    let mut fields = head.headers;
    headers::towards_instance(&mut fields, seen, &connection, exchange.scheme, settings, upgrade);
    if seen.has(Survey::COOKIE) || file.ruleset.trusted.is_some() {
        file.strip(&mut fields, connection.sender());
    }
    if settings.request_id && !seen.has(Survey::REQUEST_ID) {
        fields.insert(X_REQUEST_ID, headers::request_id(exchange.draw));
    }
    let mut uri = origin_form(head.uri);
    if settings.paths.forward_normalised {
        uri = matched_form(uri, &settings.paths);
    }
    if let Some(changes) = &mut changes {
        changes.make(file, &mut uri, &mut fields);
    }
    if settings.request_id {
        exchange.note_request_id(fields.get(X_REQUEST_ID));
    }
    exchange.upload = (!body.is_end_stream()).then(|| {
        let is_declared = !connection.is_stream && seen.has(Survey::CONTENT_LENGTH);
        let taken = if is_declared || exchange.call.is_some() {
            Taken::All
        } else {
            let edited = changes.iter().flat_map(|changes| changes.edited());
            let names = fields.keys().chain(&file.control_headers).chain(edited).cloned().collect();
            Taken::Said { names, underscores: settings.underscores }
        };
        Upload::new(body, &connection, settings.patience, settings.replay_size, taken)
    });
    if exchange.upload.is_some() {
        exchange.hold(UPLOAD);
    }
    Outbound::new(head.method, uri, fields, exchange.upload.clone(), upgrades)
}

/// Whether another try may follow: attempts are left, and sending again is safe.
fn may_follow(exchange: &Exchange, trouble: Trouble, trying: &Trying<'_>, outbound: &Outbound) -> bool {
    let refused = if exchange.attempts >= trying.policies.retry.attempts {
        "attempts"
    } else if exchange.connection().clock.now() >= trying.limits.total {
        "time"
    } else if !is_safe(trouble, outbound) {
        "unsafe"
    } else {
        return true;
    };
    exchange.count(&names::RETRIES_REFUSED, refused);
    false
}

/// Whether sending again is safe. A call's status without a message is a reason only where the rules name it, and then
/// they say that such calls may be made again.
fn is_safe(trouble: Trouble, outbound: &Outbound) -> bool {
    match trouble.cause {
        Cause::Grpc(_) => outbound.is_kept(),
        Cause::Connect | Cause::Reset | Cause::Timeout | Cause::Status(_) => outbound.can_follow(trouble.sent),
    }
}

/// Whether the service's budget allows one more. Asked last, so that nothing is taken for a try that cannot be made.
pub(super) fn is_affordable(exchange: &Exchange, retry: &Retry) -> bool {
    let affordable = exchange.within_budget(retry.budget);
    if !affordable {
        exchange.count(&names::RETRIES_REFUSED, "budget");
    }
    affordable
}

/// The back-off before the next try.
async fn pause(exchange: &Exchange, limits: &Limits) {
    let wait = backoff(exchange.attempts, exchange.draw);
    if wait > 0 {
        let connection = exchange.connection();
        let until_then = connection.clock.read_millis().plus(wait).min(limits.total);
        let _ = until(connection, until_then, pending::<()>()).await;
    }
}
