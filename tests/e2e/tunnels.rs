//! WebSocket and other changes of protocol.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Scripted, Setup, ok, read_request, soon};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
    sec-websocket-key: x\r\n\r\n";

/// Accepts the change, greets at once, then echoes.
async fn echo() -> Scripted {
    Scripted::raw(|mut stream, _| async move {
        let seen = read_request(&mut stream, &mut Vec::new(), 0, 0).await.unwrap();
        assert_eq!(seen.field("upgrade").as_deref(), Some("WebSocket"));
        assert_eq!(seen.field("connection").as_deref(), Some("upgrade"));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nwelcome";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut some = vec![0u8; 4096];
        while let Ok(n) = stream.read(&mut some).await {
            if n == 0 || stream.write_all(&some[..n]).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn bytes_pass_both_ways_after_a_101() {
    let instance = echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send([UPGRADE.as_bytes(), b"early "].concat()).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.field("upgrade").as_deref()), (101, Some("websocket")));
    assert_eq!(reply.field("connection").as_deref(), Some("upgrade"));
    assert_eq!(client.raw(7).await, b"welcome");
    assert_eq!(client.raw(6).await, b"early ");
    let long = vec![7u8; 300_000];
    let (mut read, mut write) = client.stream.split();
    let sending = write.write_all(&long);
    let mut back = vec![0u8; long.len()];
    let (sent, got) = soon("the echo", async { tokio::join!(sending, read.read_exact(&mut back)) }).await;
    assert!(sent.is_ok() && got.is_ok() && back == long);
}

#[tokio::test]
async fn the_end_of_one_side_ends_the_other() {
    let instance = echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    client.reply().await;
    client.raw(7).await;
    client.stream.shutdown().await.unwrap();
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let instance = echo().await;
    let rules = format!("{}timeout: {{stream_idle: 200ms}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    client.reply().await;
    client.raw(7).await;
    let started = std::time::Instant::now();
    assert!(client.is_closed().await);
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_refused_change_is_an_ordinary_answer() {
    let instance = Scripted::http(|_| ok("no")).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    assert_eq!(client.reply().await.text(), "no");
    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "no");
}

#[tokio::test]
async fn protocols_that_are_not_allowed_are_not_asked_for() {
    let instance = Scripted::http(|_| ok("plain")).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let request = "GET / HTTP/1.1\r\nhost: shop\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                   http2-settings: x\r\n\r\n";
    assert_eq!(proxy.ask(request).await.text(), "plain");
    let seen = &instance.requests()[0];
    assert_eq!((seen.field("upgrade"), seen.field("http2-settings")), (None, None));
}
