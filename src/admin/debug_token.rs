//! `POST /v1/debug-token`: a token with which one request in live traffic is answered with its trace.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, problem};
use crate::debug_token::{LONGEST, USUAL};
use crate::engine::format::traffic::TrafficLine;
use crate::engine::units;

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The token is good for its host and path.
    url: String,
    /// For how long, such as `5m`.
    #[serde(rename = "for")]
    good_for: Option<String>,
}

/// Takes `{"url": "http://shop.example.com/cart", "for": "5m"}`; gives the field and its value.
pub async fn issue(State(admin): State<Admin>, body: Bytes) -> Response {
    let wrong = |why: String| problem(StatusCode::BAD_REQUEST, why);
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return wrong(error.to_string()),
    };
    let good_for = match asked.good_for.as_deref().map(units::duration) {
        None => USUAL,
        Some(Some(ms)) if (1_000..=LONGEST.as_millis() as u64).contains(&ms) => Duration::from_millis(ms),
        Some(_) => return wrong("`for` is a time from 1s to 24h, such as \"5m\"".into()),
    };
    let request = match TrafficLine::of_url("GET", &asked.url).and_then(|line| line.request_by(&admin.paths)) {
        Ok(request) => request,
        Err(error) => return wrong(error.to_string()),
    };
    let Some(key) = admin.debug_keys.as_ref().and_then(|keys| keys.load_full()) else {
        return problem(StatusCode::CONFLICT, "there are no debug tokens; set `debug_token: {key_file: …}`");
    };
    let token = key.issue(&request.host, &request.path, SystemTime::now(), good_for);
    let answer = json!({
        "header": "x-pointsman-debug",
        "token": token,
        "host": request.host,
        "path": request.path,
        "expires_in_ms": good_for.as_millis() as u64,
    });
    Json(answer).into_response()
}
