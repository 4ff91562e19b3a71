//! A small page over `/v1/table` and `/v1/events`. Nothing is loaded from elsewhere; what comes from the catalog is
//! only ever set as text.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// No script, style or connection but our own; no frames.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'";

/// `/`
pub async fn index() -> Response {
    asset("text/html; charset=utf-8", include_str!("page/index.html"))
}

/// `/app.js`
pub async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page/app.js"))
}

/// `/style.css`
pub async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page/style.css"))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
