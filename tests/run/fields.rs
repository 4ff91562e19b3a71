//! What a connection over HTTP/2 remembers of fields does not hold what they came with.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, Raw, indexed, literal};
use crate::limits::{account, metric, resident};
use crate::ports::unused;
use crate::support::load::get;
use crate::support::site::{Site, ready, replace, until};

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

/// As an attacker has it: each request's name is put into the table of fields, behind 7 kB that are not.
async fn remembered(to: SocketAddr) -> Raw {
    let mut client = Raw::connect(to).await;
    let fields = [
        literal(":method", "GET"),
        literal(":scheme", "http"),
        indexed(":authority", "web.test"),
        literal(":path", "/"),
        literal("x-filler", "x".repeat(7_000)),
    ]
    .concat();
    for at in 0..REQUESTS as u32 {
        if !client.send(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &fields).await {
            break;
        }
        if client.hear(Some(2 * at + 1)).await.ended {
            break;
        }
    }
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_make_us_remember_is_counted_and_bounded() {
    let site =
        Site::new(&["web-1 version=1"], "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n");
    let site = site.await;
    let config = site.path("pointsman.yaml");
    std::fs::write(&config, "limits: {memory: 24MiB}\n").unwrap();
    let proxy = site.proxy(&["--workers", "1", "--config", config.to_str().unwrap()]).await;
    ready(proxy.admin).await;
    drop(remembered(proxy.listen).await);
    let (before, counted) = (resident(&proxy), account(&proxy).await);
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(remembered(proxy.listen).await);
    }
    let (grown, counted) = (resident(&proxy).saturating_sub(before), (account(&proxy).await - counted) as u64 / 1_024);
    println!("ten clients: {grown} KiB, {counted} counted");
    assert!(grown > 4_000, "the attack is one: {grown} KiB");
    assert!((grown / 2..=grown * 2).contains(&counted), "{grown} KiB, {counted} counted");

    let mut most = 0;
    for _ in 0..90 {
        kept.push(remembered(proxy.listen).await);
        most = most.max(resident(&proxy).saturating_sub(before));
    }
    println!("a hundred clients: at most {most} KiB");
    assert!(most < 48 * 1_024, "{before} KiB grew by {most} KiB");
    assert!(proxy.log().contains("memory is short"), "{}", proxy.log());
    let told = metric(&proxy, "pointsman_h2_goaways_total").await;
    assert!(told >= 10.0, "{told} were told to leave");
    until("a good client is served", async || {
        get(proxy.listen, "web.test", "/", &mut None).await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    drop(kept);
}
