//! `/v1/shadow`: the rules that are evaluated beside those in force, what they would change, and their promotion.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::rules::{flags, refused, reload};
use super::{Admin, problem};
use crate::dry_run::command::Explain;
use crate::engine::format::traffic::TrafficLine;
use crate::engine::time::Draw;
use crate::engine::units;
use crate::observe::shadow::{ShadowLog, Slot};
use crate::observe::timestamp;
use crate::publish::desk::{MIN_REQUESTS, PromoteLimits, Refused};

/// What is shown of the shadow rules.
#[derive(Clone)]
pub struct ShadowView {
    /// Where they are.
    pub paths: Vec<PathBuf>,
    /// What is beside the table.
    pub slot: Slot,
    /// The last disagreements.
    pub log: ShadowLog,
    /// What stands before the request in a command that explains it by the rules in force.
    pub live: Arc<dyn Fn() -> Explain + Send + Sync>,
    /// The same by the shadow rules.
    pub shadow: Explain,
}

/// State, counts, moved share, what would be unrouted, and the last disagreements with the commands that explain them.
pub async fn show(State(admin): State<Admin>) -> Response {
    let Some(view) = &admin.shadow else { return Json(json!({ "configured": false })).into_response() };
    let last = admin.reloads.last("shadow_rules");
    let candidate = view.slot.load_full();
    let state = if candidate.is_some() { "beside the rules in force" } else { "no usable shadow rules yet" };
    let since = candidate.as_ref().map(|candidate| {
        let mut since = String::new();
        timestamp::write(candidate.figures.since, &mut since);
        since
    });
    let live = (view.live)();
    let disagreements: Vec<Value> =
        view.log.last().into_iter().rev().map(|line| with_commands(line, &live, &view.shadow)).collect();
    Json(json!({
        "configured": true,
        "rules": view.paths,
        "state": state,
        "files": candidate.as_ref().map(|candidate| {
            candidate.table.router.files.iter().map(|file| file.ruleset.source.name.clone()).collect::<Vec<_>>()
        }),
        "since": since,
        "measured": candidate.as_ref().map(|candidate| candidate.figures.sums()),
        "last_reload": last.as_deref().map(reload),
        "disagreements": disagreements,
    }))
    .into_response()
}

/// Puts the shadow rules in force, within the caller's limits:
/// `{"max_moved": "5%", "max_unrouted": 0, "min_requests": 1000}`; `max_moved` must be said.
pub async fn promote(State(admin): State<Admin>, body: Bytes) -> Response {
    if admin.shadow.is_none() {
        return refused(&Refused::NoShadow);
    }
    let limits = match limits(&body) {
        Ok(limits) => limits,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    match admin.rules.promote(limits).await {
        Ok(sums) => Json(json!({ "promoted": true, "measured": sums })).into_response(),
        Err(error) => refused(&error),
    }
}

fn limits(body: &[u8]) -> Result<PromoteLimits, String> {
    let given = flags(body, &["max_moved", "max_unrouted", "min_requests"])?;
    let share = given.get("max_moved").ok_or("say how much may move: {\"max_moved\": \"5%\"}")?;
    let max_moved = share.as_str().and_then(units::share).ok_or("`max_moved` is a percentage such as \"5%\"")?;
    let whole = |key: &str, default: u64| match given.get(key) {
        None => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| format!("`{key}` is a whole number")),
    };
    let (max_unrouted, min_requests) = (whole("max_unrouted", 0)?, whole("min_requests", MIN_REQUESTS)?);
    Ok(PromoteLimits { max_moved, max_unrouted, min_requests })
}

/// The line of a disagreement, with the commands that explain both sides.
fn with_commands(mut line: Value, live: &Explain, shadow: &Explain) -> Value {
    let request = TrafficLine::parse(&line.to_string()).and_then(|line| line.request());
    if let (Ok(request), Some(line)) = (request, line.as_object_mut()) {
        let headers: Vec<_> = request.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let draw = request.draw.unwrap_or(Draw(0));
        let explain = [live, shadow].map(|by| by.request(&request, &headers, draw));
        line.insert("explain".to_owned(), json!({ "live": explain[0], "shadow": explain[1] }));
    }
    line
}

impl fmt::Debug for ShadowView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowView").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_moves_must_be_said_and_the_others_have_defaults() {
        let read = limits(br#"{"max_moved": "2.5%"}"#).unwrap();
        assert_eq!(read, PromoteLimits { max_moved: 25_000, max_unrouted: 0, min_requests: 1_000 });
        let read = limits(br#"{"max_moved": "5%", "max_unrouted": 3, "min_requests": 10}"#).unwrap();
        assert_eq!((read.max_unrouted, read.min_requests), (3, 10));
        for body in ["", "{}", r#"{"max_moved": 5}"#, r#"{"max_moved": "5%", "min": 1}"#, "[]", "nonsense"] {
            assert!(limits(body.as_bytes()).is_err(), "{body}");
        }
    }
}
