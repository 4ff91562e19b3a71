//! A tunnel on a stream: extended CONNECT (RFC 8441). To the instance it is HTTP/1's change of protocol, or one more
//! extended CONNECT.

use std::rc::Rc;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{Response, StatusCode, Version};

use super::inbound;
use crate::forward::body::AnswerBody;
use crate::forward::connection::Phase;
use crate::forward::websocket::SEC_WEBSOCKET_ACCEPT;
use crate::forward::{Connection, StreamSocket};

/// Answers yes, and passes bytes on until one side ends.
pub async fn run(
    stream: &Rc<Connection>,
    asked: inbound::Tunnel,
    response: Response<AnswerBody>,
    mut respond: SendResponse<Bytes>,
) {
    let Some(tunnel) = stream.tunnel.take() else { return respond.send_reset(Reason::INTERNAL_ERROR) };
    let mut head = response.map(|_| ());
    let proof = head.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
    if asked.accept.is_some() && asked.accept != proof {
        tracing::info!(instance = %tunnel.instance(), "an instance agreed to WebSocket without proving that it speaks it");
        return respond.send_reset(Reason::INTERNAL_ERROR);
    }
    *head.status_mut() = StatusCode::OK;
    *head.version_mut() = Version::HTTP_2;
    for name in [CONNECTION, UPGRADE, CONTENT_LENGTH] {
        head.headers_mut().remove(name);
    }
    match respond.send_response(head, false) {
        Ok(send) => {
            stream.enter(Phase::Tunnel);
            tunnel.run(StreamSocket::new(asked.recv, send), Bytes::new(), stream).await;
        }
        Err(error) => {
            tracing::debug!(peer = %stream.peer, %error, "a tunnel cannot be opened");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
