//! Stopping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::harness::pki::{Authority, greet};
use crate::harness::{Client, Proxy, Scripted, Setup, soon};
use crate::queues;

/// Answers once it is told to.
async fn held() -> (Scripted, watch::Sender<bool>) {
    let (go, told) = watch::channel(false);
    let instance = queues::held(told).await;
    (instance, go)
}

async fn waiting(instance: &Scripted, connections: usize) {
    soon("the requests", async {
        while instance.connections() < connections {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_can_finish_finishes_and_idle_connections_end() {
    let (instance, go) = held().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let address = proxy.address;
    let mut busy = proxy.client().await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    waiting(&instance, 1).await;
    let mut idle = proxy.client().await;
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(5)));
    assert!(idle.is_closed().await);
    soon("the listener's end", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!draining.is_finished());
    go.send_replace(true);
    let reply = busy.reply().await;
    assert_eq!((reply.text().as_str(), reply.field("connection").as_deref()), ("done", Some("close")));
    assert!(busy.is_closed().await);
    assert_eq!(draining.await.unwrap().cut, 0);
}

#[tokio::test]
async fn what_does_not_finish_is_cut_and_counted() {
    let (instance, _go) = held().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
    }
    waiting(&instance, 3).await;
    let started = Instant::now();
    assert_eq!(proxy.drain(Duration::from_millis(300)).await.cut, 3);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 0);
    }
}

#[tokio::test]
async fn connections_that_the_system_has_queued_are_served() {
    let (instance, go) = held().await;
    go.send_replace(true);
    let proxy = Proxy::to(&[instance.address]).await;
    let mut queued = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(proxy.address).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        queued.push(client);
    }
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(5)));
    for client in &mut queued {
        assert_eq!(client.reply().await.text(), "done");
    }
    assert_eq!(draining.await.unwrap().cut, 0);
}

#[tokio::test]
async fn who_has_not_begun_a_handshake_is_not_waited_for() {
    let instance = Scripted::echo().await;
    let authority = Authority::new();
    let proxy = Setup::to(&[instance.address]).listen(vec![authority.listen("a.test")]).start().await;
    let mut silent = Client::connect(proxy.address).await;
    let mut halfway = Client::connect(proxy.address).await;
    // The beginning of a record that is not whole.
    halfway.send("\x16\x03\x01").await;
    // Both are the worker's by now.
    greet(&Arc::new(authority.trusted()), proxy.address, "a.test").await.unwrap();
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(5)));
    assert!(silent.is_closed().await);
    assert!(!draining.is_finished(), "a handshake that has begun is waited for");
    drop(halfway);
    assert_eq!(draining.await.unwrap().cut, 0);
}
