//! `/v1/rules`: the rule files in force and how the last reload went; `/v1/explain`: the dry run of one request.

use std::hash::{BuildHasher as _, RandomState};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::dry_run;
use crate::engine::diagnostic::{Diagnostic, Diagnostics};
use crate::engine::format::traffic::TrafficLine;
use crate::engine::rules::{HostPattern, PoolSpec, Rule, RuleFile};
use crate::engine::time::Draw;
use crate::observe::reloads::Reload;
use crate::observe::timestamp;

use super::{Admin, problem};

/// The rule files in force, and the last reload with everything that was found.
pub async fn show(State(admin): State<Admin>) -> Response {
    let table = admin.table.load_full();
    let files: Vec<Value> = table.router.written().iter().map(|file| written(&file.ruleset)).collect();
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
    Json(dry_run::explain::explain(&table, &request.view(trusted), draw, admin.clock.now())).into_response()
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
