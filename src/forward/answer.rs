//! Answers of our own: errors, redirects, fixed texts.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::Source;
use super::error::Detail;
use super::headers::{X_POINTSMAN_ERROR, own_answer};
use super::retry::Failure;
use super::settings::Settings;
use crate::engine::route::Action;

/// An answer of ours instead of an instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status; the detail's own unless a rule says otherwise.
    pub status: StatusCode,
    /// Why.
    pub detail: Detail,
}

impl From<Detail> for Refusal {
    fn from(detail: Detail) -> Self {
        Self { status: detail.status(), detail }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        failure.detail.into()
    }
}

/// A refusal with the status that the rules ask for.
#[must_use]
pub fn refusal(status: u16, detail: Detail) -> Refusal {
    Refusal { status: StatusCode::from_u16(status).unwrap_or(detail.status()), detail }
}

/// Whether the client would rather have a problem document.
#[must_use]
pub fn accepts_json(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(|range| range.split(';').next().unwrap_or("").trim()).any(|range| {
            range.eq_ignore_ascii_case("application/json") || range.eq_ignore_ascii_case("application/problem+json")
        })
    })
}

/// The answer for a refusal.
#[must_use]
pub fn refuse(refusal: Refusal, json: bool, settings: &Settings) -> Response<Source> {
    let Refusal { status, detail } = refusal;
    let word = detail.word();
    let (text, kind) = if json {
        let title = status.canonical_reason().unwrap_or("");
        let text = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":\"{word}\"}}\n",
            status.as_u16()
        );
        (Bytes::from(text), "application/problem+json")
    } else {
        let reason = status.canonical_reason().unwrap_or("error");
        (Bytes::from(format!("{} {reason}\n", status.as_u16())), "text/plain; charset=utf-8")
    };
    let mut response = own(status, text, HeaderValue::from_static(kind));
    if settings.error_header {
        response.headers_mut().insert(X_POINTSMAN_ERROR, HeaderValue::from_static(word));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, settings.retry_after.clone());
    }
    response
}

/// The answer that a rule gives itself. `None`: the rule sends to a pool.
#[must_use]
pub fn fixed(action: &Action) -> Option<Response<Source>> {
    match action {
        Action::Redirect { status, location } => {
            let mut response = own(status_of(*status), Bytes::new(), HeaderValue::from_static("text/plain"));
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().insert(LOCATION, HeaderValue::try_from(&**location).ok()?);
            Some(response)
        }
        Action::Respond { status, body, content_type } => {
            let kind = HeaderValue::try_from(&**content_type).ok()?;
            Some(own(status_of(*status), Bytes::copy_from_slice(body.as_bytes()), kind))
        }
        Action::To(_) | Action::Split(_) => None,
    }
}

/// An answer of ours.
pub(super) fn own(status: StatusCode, text: Bytes, kind: HeaderValue) -> Response<Source> {
    let mut response = Response::new(Source::own(text));
    *response.status_mut() = status;
    own_answer(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_given_only_to_who_asks_for_it() {
        let accepts = |value| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(value));
            accepts_json(&headers)
        };
        assert!(accepts("application/json"));
        assert!(accepts("text/html, Application/Problem+JSON;q=0.5"));
        assert!(!accepts("text/html, */*"));
        assert!(!accepts_json(&HeaderMap::new()));
    }

    #[test]
    fn a_refusal_says_why_and_when_to_come_back() {
        let settings = Settings::default();
        let response = refuse(Detail::NoRoutableInstance.into(), true, &settings);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-pointsman-error"], "no_routable_instance");
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let quiet = Settings { error_header: false, ..settings };
        assert!(!refuse(Detail::NoRoute.into(), false, &quiet).headers().contains_key("x-pointsman-error"));
    }
}
