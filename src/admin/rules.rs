//! `/v1/rules`: the rule files in force and how the last reload went; `/v1/explain`: the dry run of one request.

use std::hash::{BuildHasher as _, RandomState};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::dry_run;
use crate::engine::diagnostic::{Diagnostic, Diagnostics};
use crate::engine::format::limits::LimitsNote;
use crate::engine::format::traffic::TrafficLine;
use crate::engine::limit::rate::SECOND;
use crate::engine::rules::{HostPattern, PoolSpec, Rule, RuleFile};
use crate::engine::time::{Draw, Millis};
use crate::observe::limit_book::Book;
use crate::observe::reloads::Reload;
use crate::observe::timestamp;

use super::{Admin, problem};

/// The rule files in force, and the last reload with everything that was found.
pub async fn show(State(admin): State<Admin>) -> Response {
    let table = admin.table.load_full();
    let files: Vec<Value> = table.router.files.iter().map(|file| written(&file.ruleset)).collect();
    let last = admin.reloads.last("rules");
    let last = last.as_deref().map(reload);
    Json(json!({ "generation": table.generation, "files": files, "last_reload": last })).into_response()
}

/// A traffic line in, the explanation out; by the table in force. A line without a draw gets one.
pub async fn explain(State(admin): State<Admin>, line: String) -> Response {
    let table = admin.table.load_full();
    let request = match TrafficLine::parse(&line).and_then(|line| line.request()) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let trusted = table.router.trusts(&request.host, &request.path, request.client);
    let draw = request.draw.unwrap_or_else(|| Draw(RandomState::new().hash_one(table.generation)));
    let now = admin.clock.now();
    let mut told = dry_run::explain::explain(&table, &request.view(trusted), draw, now);
    if let (Some(file), Some(policies)) = (&told.file, &mut told.policies) {
        live(&mut policies.limits, &admin.book, &file.service, &file.name, policies.retry.budget, now);
    }
    Json(told).into_response()
}

/// Adds to limits in force what is left of them. `share`: of the retry budget.
fn live(limits: &mut LimitsNote, book: &Book, service: &str, file: &str, share: u32, now: Millis) {
    let budgets = book.budgets();
    limits.budget_left = budgets.iter().find(|(of, _)| &**of == service).map(|(_, budget)| budget.left(now, share));
    if let Some(note) = &mut limits.limit {
        let limiters = book.limiters();
        let here = limiters
            .iter()
            .find(|((of, name, rule, _), _)| (&**of, &**name, &**rule) == (service, file, note.of.as_str()));
        if let Some((_, limiter)) = here {
            note.held = (note.concurrency > 0).then(|| limiter.places().0);
            note.left = limiter.left(now.0 * (SECOND / 1_000));
        }
    }
    let loads = book.loads();
    let load = loads.iter().find(|(of, _)| &**of == service);
    limits.service = load.and_then(|(_, load)| Some((load.held(), load.limit()?)));
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

fn reload(reload: &Reload) -> Value {
    let mut at = String::new();
    timestamp::write(reload.at, &mut at);
    json!({
        "ts": at,
        "result": if reload.accepted { "ok" } else { "failed" },
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
