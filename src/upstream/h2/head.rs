//! A request's head as HTTP/2 wants it: `:scheme` and `:authority` in place of Host, nothing that concerns one
//! connection only.

use h2::ext::Protocol;
use http::header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};

use super::fields::detach;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The head of a request that is in HTTP/1.1's form. `tunnel`: its `Upgrade` is asked for by an extended CONNECT
/// (RFC 8441). `None`: its Host is not one that HTTP/2 can carry.
pub fn of<B>(request: Request<B>, encrypted: bool, tunnel: bool) -> Option<(Request<()>, B)> {
    let (mut head, body) = request.into_parts();
    let host = head.headers.remove(HOST);
    let authority = match host.as_ref().map(HeaderValue::as_bytes) {
        None | Some(b"") => None,
        Some(host) => Some(Authority::try_from(host).ok()?),
    };
    let mut parts = Parts::default();
    parts.scheme = authority.is_some().then_some(if encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = authority;
    parts.path_and_query = head.uri.into_parts().path_and_query;
    head.uri = Uri::from_parts(parts).ok()?;
    // `h2` sends a head without an authority only for a request that was HTTP/1's.
    head.version = if head.uri.authority().is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
    let protocol = head.headers.remove(UPGRADE);
    head.headers.remove(CONNECTION);
    // A body's frames say where it ends.
    head.headers.remove(TRANSFER_ENCODING);
    detach(&mut head.headers);
    if let Some(id) = head.headers.get_mut(X_REQUEST_ID) {
        // It never comes again: in the table of fields it would only push out those that do (RFC 7541, 7.1.3).
        id.set_sensitive(true);
    }
    if tunnel {
        head.method = Method::CONNECT;
        head.headers.remove(SEC_WEBSOCKET_KEY);
        let protocol = protocol.as_ref().and_then(|protocol| protocol.to_str().ok())?;
        head.extensions.insert(Protocol::from(protocol.to_ascii_lowercase().as_str()));
    }
    Some((Request::from_parts(head, ()), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_becomes_the_authority() {
        let request = Request::get("/a?b").header("host", "shop:80").header("te", "trailers").body(()).unwrap();
        let (head, ()) = of(request, false, false).unwrap();
        assert_eq!(head.uri(), "http://shop:80/a?b");
        assert_eq!((head.headers().len(), &head.headers()["te"]), (1, &HeaderValue::from_static("trailers")));
    }

    #[test]
    fn a_request_id_is_not_remembered() {
        let request = Request::get("/").header("host", "shop").header("x-request-id", "1").header("te", "trailers");
        let (head, ()) = of(request.body(()).unwrap(), false, false).unwrap();
        assert!(head.headers()["x-request-id"].is_sensitive() && !head.headers()["te"].is_sensitive());
    }

    #[test]
    fn an_upgrade_becomes_an_extended_connect() {
        let request = Request::get("/ws").header("host", "shop").header("upgrade", "WebSocket");
        let request = request.header("connection", "upgrade").header("sec-websocket-key", "x").body(()).unwrap();
        let (head, ()) = of(request, true, true).unwrap();
        assert_eq!((head.method(), head.uri().to_string().as_str()), (&Method::CONNECT, "https://shop/ws"));
        assert_eq!(head.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        assert!(head.headers().is_empty());
    }
}
