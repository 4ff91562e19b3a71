//! Who may ask: the Host of every request, the content type and the token of actions.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Access, Admin, problem};

/// Refuses a Host that is no address, not `localhost` and not configured: a page of another site that has rebound its
/// name to this address must not read or move anything.
pub async fn host(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let mut named = request.headers().get_all(header::HOST).iter();
    match (named.next().and_then(|host| host.to_str().ok()), named.next()) {
        (Some(host), None) if admin.access.knows(host) => next.run(request).await,
        (Some(_), None) => {
            let message =
                "this Host is not known here; use an address or `localhost`, or add it to `admin: {hosts: […]}`";
            problem(StatusCode::FORBIDDEN, message)
        }
        _ => problem(StatusCode::BAD_REQUEST, "a request needs one Host"),
    }
}

/// Refuses an action that a page of another site could send, and one without the token.
pub async fn action(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if !is_json(request.headers()) {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "actions need `content-type: application/json`");
    }
    // Explaining changes nothing.
    if request.uri().path() == "/v1/explain" {
        return next.run(request).await;
    }
    match admin.access.token.load_full() {
        Some(token) if bears(request.headers(), &token) => next.run(request).await,
        Some(_) => problem(StatusCode::UNAUTHORIZED, "this action needs `authorization: Bearer TOKEN`"),
        None if admin.access.loopback => next.run(request).await,
        None => problem(StatusCode::FORBIDDEN, "off loopback actions need a token; set `admin: {token_file: …}`"),
    }
}

impl Access {
    fn knows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        name == "localhost" || bare.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, port)) if digits(port) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json")
}

/// Compared without a shortcut, so that the time taken tells nothing of the token.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let value = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let Some(given) = value.strip_prefix(b"Bearer ") else { return false };
    let differing = given.iter().zip(token.as_bytes()).fold(0, |seen, (a, b)| seen | (a ^ b));
    !token.is_empty() && given.len() == token.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        let access = Access { loopback: true, token: Arc::default(), hosts: vec!["proxy.internal".to_owned()] };
        for host in
            ["127.0.0.1", "127.0.0.1:9900", "[::1]:9900", "[::1]", "localhost:1", "LocalHost", "proxy.internal:80"]
        {
            assert!(access.knows(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9900", "", "proxy.internal.x"] {
            assert!(!access.knows(host), "{host}");
        }
    }
}
