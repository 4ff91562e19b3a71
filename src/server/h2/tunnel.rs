//! A tunnel on a stream: extended CONNECT (RFC 8441). To the instance it is HTTP/1's change of protocol, or one more
//! extended CONNECT.

use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{Response, StatusCode, Version};

use super::inbound;
use crate::forward::body::AnswerBody;
use crate::forward::connection::Phase;
use crate::forward::upgrade::Tunnel;
use crate::forward::websocket::SEC_WEBSOCKET_ACCEPT;
use crate::forward::{Connection, Settings, StreamSocket};

/// A tunnel that an instance agreed to, or what the client is told where it did not prove what it agreed to.
pub fn agreed(
    stream: &Connection,
    asked: &inbound::Tunnel,
    response: &mut Response<AnswerBody>,
    settings: &Settings,
) -> Option<Box<Tunnel>> {
    let tunnel = stream.tunnel.take()?;
    let proof = response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
    if asked.accept.is_none() || asked.accept == proof {
        return Some(tunnel);
    }
    tracing::info!(instance = %tunnel.instance(), "an instance agreed to WebSocket without proving that it speaks it");
    *response = tunnel.disbelieved(settings);
    None
}

/// Answers yes, and passes bytes on until one side ends.
pub async fn run(
    stream: Rc<Connection>,
    tunnel: Box<Tunnel>,
    recv: RecvStream,
    response: Response<AnswerBody>,
    mut respond: SendResponse<Bytes>,
) {
    let mut head = response.map(|_| ());
    *head.status_mut() = StatusCode::OK;
    *head.version_mut() = Version::HTTP_2;
    for name in [CONNECTION, UPGRADE, CONTENT_LENGTH] {
        head.headers_mut().remove(name);
    }
    match respond.send_response(head, false) {
        Ok(send) => {
            stream.enter(Phase::Tunnel);
            tunnel.run(StreamSocket::new(recv, send), Bytes::new(), &stream).await;
        }
        Err(error) => {
            tracing::debug!(peer = %stream.peer, %error, "a tunnel cannot be opened");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
