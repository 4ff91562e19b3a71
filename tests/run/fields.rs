//! What a connection over HTTP/2 remembers of fields does not hold what they came with.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::floods::resident;
use crate::ports::unused;
use crate::support::site::{Site, ready, replace};

const CONNECTIONS: u64 = 20;
const REQUESTS: usize = 100;
/// KiB a connection. It was 1,300.
const MOST: u64 = 150;

/// An instance of HTTP/1.1 whose answers have 60 kB and an id of their own.
async fn instance() -> SocketAddr {
    let listener = TcpListener::bind(unused()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) {
    let (mut read, mut answered) = (Vec::new(), 0);
    while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
        if read.ends_with(b"\r\n\r\n") {
            answered += 1;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\nx-request-id: {answered:08}\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), &[b'x'; 60_000]].concat()).await;
            read.clear();
        }
    }
}

/// A connection on which so many requests were answered, one after the other.
async fn used(to: SocketAddr) -> h2::client::SendRequest<bytes::Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(TcpStream::connect(to).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..REQUESTS {
        let request = http::Request::get("http://web.test/").body(()).unwrap();
        let answer = sender.send_request(request, true).unwrap().0.await.unwrap();
        let (head, mut body) = answer.into_parts();
        assert_eq!((head.status.as_u16(), head.headers["x-request-id"].len()), (200, 8));
        let mut length = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            length += piece.len();
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        assert_eq!(length, 60_000);
    }
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_is_new_in_each_answer_does_not_hold_the_answers() {
    let site = Site::new(&[], "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n").await;
    let at = instance().await;
    replace(
        &site.catalog(),
        &format!("services:\n  web:\n    - {{id: web-1, address: {}, port: {}}}\n", at.ip(), at.port()),
    );
    let proxy = site.proxy(&["--workers", "1"]).await;
    ready(proxy.admin).await;
    // What is taken once is no connection's.
    drop(used(proxy.listen).await);
    let before = resident(&proxy);
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS {
        kept.push(used(proxy.listen).await);
    }
    let grown = resident(&proxy).saturating_sub(before);
    println!("{} KiB a connection", grown / CONNECTIONS);
    assert!(grown <= MOST * CONNECTIONS, "{before} KiB grew by {grown} KiB");
    drop(kept);
}
