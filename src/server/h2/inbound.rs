//! A request of HTTP/2 in the form that the rest of the proxy knows: Host in place of `:authority`, one Cookie, a change
//! of protocol as HTTP/1 asks for it.

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use http::header::{CONNECTION, COOKIE, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::engine::time::Draw;
use crate::forward::websocket::{self, SEC_WEBSOCKET_KEY};
use crate::forward::{Received, Sender};

/// The stream that a request's body, or a tunnel, comes on, if it is the latter.
pub struct Inbound {
    /// The request.
    pub request: Request<Received>,
    /// What a tunnel reads, if one is asked for.
    pub tunnel: Option<Tunnel>,
}

/// A tunnel that is asked for.
pub struct Tunnel {
    /// What the client sends in it.
    pub recv: RecvStream,
    /// What the instance has to answer to the key that we made; `None`: it is no WebSocket.
    pub accept: Option<HeaderValue>,
}

/// Rewrites a request. What is wrong with it is found where HTTP/1's requests are judged; a CONNECT that asks for no
/// `allowed` protocol stays one, and is refused.
pub fn of(request: Request<RecvStream>, allowed: &[String], luck: Draw) -> Inbound {
    let (mut head, recv) = request.into_parts();
    // With both, they are compared, and Host is used (RFC 9113, 8.3.1).
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
        let uri = std::mem::take(&mut head.uri).into_parts();
        head.uri = uri.path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    join_cookies(&mut head.headers);
    let asked = if head.method == Method::CONNECT { head.extensions.remove::<Protocol>() } else { None };
    let asked = asked.filter(|asked| allowed.iter().any(|known| known.eq_ignore_ascii_case(asked.as_str())));
    if let Some(protocol) = asked.as_ref().and_then(|asked| HeaderValue::from_str(asked.as_str()).ok()) {
        head.method = Method::GET;
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let key = protocol.as_bytes().eq_ignore_ascii_case(b"websocket").then(|| websocket::key(bytes_of(luck)));
        let accept = key.as_ref().map(|key| websocket::accept(key.as_bytes()));
        head.headers.insert(UPGRADE, protocol);
        if let Some(key) = key {
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        let tunnel = Some(Tunnel { recv, accept });
        return Inbound { request: Request::from_parts(head, Received::None), tunnel };
    }
    let body =
        if recv.is_end_stream() { Received::None } else { Received::of_stream(recv, &head.headers, Sender::Client) };
    Inbound { request: Request::from_parts(head, body), tunnel: None }
}

/// Puts the pieces of a cookie field together again (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(COOKIE).iter();
    if pieces.next().is_none() || pieces.next().is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_maybe_shared(Bytes::from(pieces.join(&b"; "[..]))) {
        headers.insert(COOKIE, whole);
    }
}

fn bytes_of(mut luck: Draw) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&luck.advance().to_be_bytes());
    second.copy_from_slice(&luck.advance().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_cookie_become_one_field() {
        let mut headers = HeaderMap::new();
        for piece in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(COOKIE, HeaderValue::from_static(piece));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }
}
