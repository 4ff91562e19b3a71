//! `/v1/rules`: the rule files in force and how the last reload went; `/v1/explain`: the dry run of one request.

use std::hash::{BuildHasher as _, RandomState};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::dry_run;
use crate::engine::diagnostic::{Diagnostic, Diagnostics};
use crate::engine::format::limits::{LimitNote, LimitsNote};
use crate::engine::format::traffic::TrafficLine;
use crate::engine::limit::rate::SECOND;
use crate::engine::policy::Concurrency;
use crate::engine::route::{Scratch, decide, limit_key};
use crate::engine::rules::{HostPattern, Limit, PoolSpec, Rule, RuleFile};
use crate::engine::time::{Draw, Millis};
use crate::engine::trace::NoTrace;
use crate::observe::limit_book::Book;
use crate::observe::reloads::Reload;
use crate::observe::timestamp;
use crate::publish::desk::Refused;

use super::{Admin, problem};

/// The rule files in force, and the last reload with everything that was found.
pub async fn show(State(admin): State<Admin>) -> Response {
    let table = admin.table.load_full();
    let files: Vec<Value> = table.router.written().iter().map(|file| written(&file.ruleset)).collect();
    let last = admin.reloads.last("rules");
    let last = last.as_deref().map(reload);
    let in_force = admin.rules.in_force();
    Json(json!({
        "generation": table.generation,
        "state": in_force.words(),
        "promoted": in_force.promoted,
        "differs_from_disk": in_force.differs(),
        "guard": { "refused": in_force.refused, "passed": in_force.passed },
        "files": files,
        "last_reload": last,
    }))
    .into_response()
}

/// Reads the rule files again and applies them; `{"force": true}` whatever the guard finds.
pub async fn apply(State(admin): State<Admin>, body: Bytes) -> Response {
    let force = match flags(&body, &["force"]) {
        Ok(given) => given.get("force").map_or(Some(false), Value::as_bool),
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    let Some(force) = force else { return problem(StatusCode::BAD_REQUEST, "`force` is true or false") };
    match admin.rules.apply(force).await {
        Ok(applied) => Json(applied).into_response(),
        Err(error) => refused(&error),
    }
}

/// An order about rules that was not obeyed.
pub(super) fn refused(error: &Refused) -> Response {
    let error_only = json!({ "error": error.to_string() });
    let (status, body) = match error {
        Refused::Unusable(_) => (StatusCode::UNPROCESSABLE_ENTITY, error_only),
        Refused::Guarded(finding) => (StatusCode::CONFLICT, json!({ "error": error.to_string(), "guard": finding })),
        Refused::OverLimit(_, sums) => (StatusCode::CONFLICT, json!({ "error": error.to_string(), "measured": sums })),
        Refused::NoShadow => (StatusCode::CONFLICT, error_only),
        Refused::Stopping => (StatusCode::SERVICE_UNAVAILABLE, error_only),
    };
    (status, Json(body)).into_response()
}

/// A body that is an object with no other keys than these; nothing at all is an empty one.
pub(super) fn flags(body: &[u8], known: &[&str]) -> Result<Map<String, Value>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let given: Value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let Value::Object(given) = given else { return Err("the body must be an object".to_owned()) };
    match given.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(format!("unknown key `{unknown}`; known: `{}`", known.join("`, `"))),
        None => Ok(given),
    }
}

/// A traffic line in, the explanation out; by the table in force. A line without a draw gets one.
pub async fn explain(State(admin): State<Admin>, line: String) -> Response {
    let table = admin.table.load_full();
    let request = match TrafficLine::parse(&line).and_then(|line| line.request_by(&admin.paths)) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let trusted = table.router.trusts(&request.host, &request.path, request.sender());
    let draw = request.draw.unwrap_or_else(|| Draw(RandomState::new().hash_one(table.generation)));
    let now = admin.clock.now();
    let view = request.view(trusted);
    let mut told = dry_run::explain::explain(&table, &view, draw, now);
    if let (Some(file), Some(policies)) = (&told.file, &mut told.policies) {
        live(&mut policies.limits, &admin.book, &file.service, policies.retry.budget, now);
        if let Some(note) = &mut policies.limits.limit {
            let mut scratch = Scratch::new();
            let decision = decide(&*table, &view, draw, &mut scratch, &mut NoTrace);
            let key = limit_key(&table.router, &decision, &view, &mut scratch, admin.book.seeds());
            live_limit(note, &admin.book, (&file.service, &file.name), key, now);
        }
        let instances = table.snapshot.service(&file.service).map_or(&[][..], |service| &service.endpoints);
        if policies.limits.overload.is_some_and(|overload| overload.instance != Concurrency::Unlimited) {
            policies.limits.waiting = Some(instances.iter().map(|endpoint| endpoint.live.waiting()).sum());
        }
    }
    Json(told).into_response()
}

/// Adds to limits in force what is left of them. `share`: of the retry budget.
fn live(limits: &mut LimitsNote, book: &Book, service: &str, share: u32, now: Millis) {
    let budgets = book.budgets();
    limits.budget_left = budgets.iter().find(|(of, _)| &**of == service).map(|(_, budget)| budget.left(now, share));
    let loads = book.loads();
    let load = loads.iter().find(|(of, load)| &**of == service && Some(load.policy) == limits.overload);
    limits.service = load.and_then(|(_, load)| Some((load.held(), load.limit()?)));
    let memory = book.memory();
    limits.memory = (memory.limit() > 0).then(|| (memory.held(), memory.limit()));
}

/// Adds to a `limit` what is left of it for the key that a request has. Whoever asks gets no bucket.
fn live_limit(note: &mut LimitNote, book: &Book, (service, file): (&str, &str), key: u64, now: Millis) {
    let limiters = book.limiters();
    // One that was changed may still be held by requests that came before.
    let same = |limit: &Limit| {
        let by = limit.key.as_ref().map(ToString::to_string);
        (limit.concurrency, limit.rate_milli, &by) == (note.concurrency, note.rate_milli, &note.key)
    };
    let here = limiters.iter().find(|((of, name, rule, limit), _)| {
        (&**of, &**name, &**rule) == (service, file, note.of.as_str()) && same(limit)
    });
    if let Some((_, limiter)) = here {
        note.held = (note.concurrency > 0).then(|| limiter.places().0);
        note.left = limiter.left(key, now.0 * (SECOND / 1_000));
    }
}

fn written(file: &RuleFile) -> Value {
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
    };
    let pool = |pool: &PoolSpec| json!({ "name": &*pool.name.value, "select": &*pool.select.text });
    let rule = |rule: &Rule| json!({ "name": &*rule.name.value, "when": rule.when.as_ref().map(|when| &*when.text) });
    json!({
        "file": file.source.name,
        "service": &*file.service.value,
        "hosts": file.hosts.iter().map(|at| host(&at.value)).collect::<Vec<_>>(),
        "paths": file.paths.iter().map(|path| &*path.value).collect::<Vec<_>>(),
        "pools": file.pools.iter().map(pool).collect::<Vec<_>>(),
        "rules": file.rules.iter().map(rule).collect::<Vec<_>>(),
        "text": file.source.text,
    })
}

pub(super) fn reload(reload: &Reload) -> Value {
    let mut at = String::new();
    timestamp::write(reload.at, &mut at);
    json!({
        "ts": at,
        "result": reload.result,
        "reason": reload.reason,
        "diagnostics": diagnostics(&reload.diagnostics),
    })
}

fn diagnostics(found: &Diagnostics) -> Vec<Value> {
    let one = |diagnostic: &Diagnostic| {
        let (line, column) = diagnostic.source.position(diagnostic.span.start);
        json!({
            "code": diagnostic.code,
            "severity": diagnostic.severity,
            "message": diagnostic.message,
            "label": diagnostic.label,
            "help": diagnostic.help,
            "file": diagnostic.source.name,
            "line": line,
            "column": column,
            "text": diagnostic.render(),
        })
    };
    found.0.iter().map(one).collect()
}
