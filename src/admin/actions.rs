//! Actions on instances and on the catalog's guard.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine::units;

use super::handles::{Action, ActionError};
use super::{Admin, problem};

/// `POST /v1/instances/{service}/{id}/{eject|readmit|drain|undrain}`; `eject` takes `{"for": "5m"}`.
pub async fn instance(
    State(admin): State<Admin>,
    Path((service, id, action)): Path<(String, String, String)>,
    body: Bytes,
) -> Response {
    let asked = match action.as_str() {
        "eject" => match ejection_time(&body) {
            Ok(time) => Action::Eject(time),
            Err(why) => return problem(StatusCode::BAD_REQUEST, why),
        },
        "readmit" => Action::Readmit,
        "drain" => Action::Drain,
        "undrain" => Action::Undrain,
        _ => return problem(StatusCode::NOT_FOUND, "actions are eject, readmit, drain, undrain"),
    };
    match admin.actions.act(&service, &id, asked) {
        Ok(changed) => {
            Json(json!({ "service": service, "instance": id, "action": action, "changed": changed })).into_response()
        }
        Err(error) => refused(error),
    }
}

/// `POST /v1/catalog/{service}/accept`.
pub async fn accept(State(admin): State<Admin>, Path(service): Path<String>) -> Response {
    match admin.catalog.accept(&service) {
        Ok(released) => Json(json!({ "service": service, "released": released })).into_response(),
        Err(error) => refused(error),
    }
}

fn refused(error: ActionError) -> Response {
    let status = match error {
        ActionError::NoService | ActionError::NoInstance => StatusCode::NOT_FOUND,
        ActionError::NothingHeld => StatusCode::CONFLICT,
        ActionError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, error.to_string())
}

fn ejection_time(body: &[u8]) -> Result<Option<u64>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let given: Value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let object = given.as_object().ok_or("the body must be an object")?;
    if let Some(unknown) = object.keys().find(|key| *key != "for") {
        return Err(format!("unknown key `{unknown}`; known: `for`"));
    }
    let Some(time) = object.get("for") else { return Ok(None) };
    let time = time.as_str().and_then(units::duration).filter(|ms| *ms > 0);
    time.map(Some).ok_or_else(|| "`for` is a duration above 0, such as \"5m\"".to_owned())
}
