//! The account of memory: who does not read goes first, then new requests are refused, then nobody is accepted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::h2::{H2Client, get};
use crate::harness::pki::Authority;
use crate::harness::{Act, Client, PATIENCE, Proxy, Scripted, Setup, ok, read_request, soon};

const MIB: u64 = 1 << 20;

/// `/big` never ends; the rest is short.
async fn endless() -> Scripted {
    Scripted::raw(|mut stream, _| async move {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let mut read = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut read, 0, 0).await {
            if seen.line().contains("/big") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshort").await;
        }
    })
    .await
}

/// Asks for an endless answer and takes nothing of it.
async fn ask_and_do_not_read(proxy: &Proxy) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = soon("a connection", socket.connect(proxy.address)).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    stream
}

/// Whether the connection was reset: its end comes, and what was sent before may.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut taken = vec![0; 64 * 1024];
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        match tokio::time::timeout(Duration::from_millis(100), stream.read(&mut taken)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
    false
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_reads_least_is_reset_first_and_good_clients_are_served() {
    let instance = endless().await;
    let mut setup = Setup::to(&[instance.address]).limits(|limits| limits.memory = 12 * MIB);
    setup.workers = 2;
    let proxy = Arc::new(setup.start().await);
    let over = Arc::new(AtomicBool::new(false));
    let results = Arc::new(Mutex::new((0u32, 0u32)));
    let highest = Arc::new(Mutex::new(0));
    let good = {
        let (proxy, over, results, highest) =
            (Arc::clone(&proxy), Arc::clone(&over), Arc::clone(&results), Arc::clone(&highest));
        tokio::spawn(async move {
            let mut kept = proxy.client().await;
            while !over.load(Ordering::Relaxed) {
                kept.send("GET /short HTTP/1.1\r\nhost: shop\r\n\r\n").await;
                for reply in [kept.reply().await, proxy.get("/short").await] {
                    let served = u32::from(reply.status == 200 && reply.whole);
                    if served == 0 {
                        eprintln!("not served: {reply:?}");
                    }
                    let mut results = results.lock().unwrap();
                    *results = (results.0 + served, results.1 + 1);
                }
                let mut highest = highest.lock().unwrap();
                *highest = proxy.memory().held().max(*highest);
            }
        })
    };
    let mut slow = Vec::new();
    for _ in 0..300 {
        slow.push(ask_and_do_not_read(&proxy).await);
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    until("the resets", || {
        let resets = proxy.metric("pointsman_memory_resets_total{of=\"connection\"}");
        resets.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).is_some_and(|count| count >= 100.0)
    })
    .await;
    over.store(true, Ordering::Relaxed);
    soon("the good client", good).await.unwrap();
    let (served, asked) = *results.lock().unwrap();
    assert!(asked >= 20 && served * 100 >= asked * 99, "{served} of {asked}");
    let highest = *highest.lock().unwrap();
    assert!(highest <= 12 * MIB, "the account stays within its limit: {highest}");

    let mut first = 0;
    for stream in slow.iter_mut().take(50) {
        first += usize::from(is_reset(stream).await);
    }
    assert_eq!(first, 50, "those that came first have not read for longest");
    assert!(!is_reset(slow.last_mut().unwrap()).await, "there is room for some");
    drop(slow);
    until("recovery", || proxy.memory().held() < MIB).await;
    assert_eq!(proxy.get("/short").await.status, 200);
}

#[tokio::test]
async fn without_anybody_to_reset_new_requests_are_refused_and_then_nobody_is_accepted() {
    let instance = Scripted::http(|seen| if seen.line().contains("/hang") { Act::Hang } else { ok("short") }).await;
    let proxy = Setup::to(&[instance.address])
        .limits(|limits| limits.memory = MIB)
        .settings(|settings| settings.exempt_paths = vec!["/health".into()])
        .start()
        .await;
    let (mut early, mut healthy) = (proxy.client().await, proxy.client().await);
    let mut held = Vec::new();
    while proxy.metric("pointsman_shed_total{limit=\"memory\"}").is_none() {
        let mut client = proxy.client().await;
        client.send("GET /hang HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        held.push(client);
        assert!(held.len() < 100, "nobody is refused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    early.send("GET /short HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let refused = early.reply().await;
    assert_eq!((refused.status, refused.field("x-pointsman-error").as_deref()), (503, Some("overloaded")));
    assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
    healthy.send("GET /health HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert_eq!(healthy.reply().await.status, 200, "exempt paths go past it");

    while proxy.metric("pointsman_accept_errors_total{reason=\"memory\"}").is_none() {
        held.push(Client::connect(proxy.address).await);
        assert!(held.len() < 200, "accepting never pauses");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(held);
    assert_eq!(proxy.get("/short").await.status, 200, "it recovers by itself");
    assert_eq!(proxy.metric("pointsman_memory_resets_total"), None, "nobody was slow");
}

#[tokio::test]
async fn streams_that_nobody_reads_are_reset_one_by_one() {
    let (instance, _) = crate::harness::h2::instance(|_, mut respond, _| async move {
        let mut sink = respond.send_response(http::Response::new(()), false).unwrap();
        while sink.send_data(Bytes::from(vec![0; 16 * 1024]), false).is_ok() {
            sink.reserve_capacity(16 * 1024);
            if !matches!(std::future::poll_fn(|cx| sink.poll_capacity(cx)).await, Some(Ok(_))) {
                return;
            }
        }
    })
    .await;
    let mut setup = Setup::to(&[instance.address]).limits(|limits| limits.memory = 3 * MIB);
    setup.instances = vec![crate::harness::instance("web-0", instance.address, &[("proto", "h2c")])];
    let proxy = setup.start().await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(16 * 1024);
    let client = H2Client::with(proxy.address, &builder).await;
    let mut open = Vec::new();
    for _ in 0..60 {
        let (answer, _) = client.start(get("/big").map(|_| ()), true).await;
        open.push(answer);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("a reset", || proxy.metric("pointsman_memory_resets_total{of=\"stream\"}").is_some()).await;
    let answer = soon("the first answer", open.remove(0)).await.unwrap();
    let mut body = answer.into_body();
    let ended = loop {
        match soon("its end", body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error.reason(),
            None => break None,
        }
    };
    assert_eq!(ended, Some(Reason::CANCEL));
    let sends = client.sender.clone();
    assert!(soon("the connection", sends.ready()).await.is_ok(), "the connection goes on");
    drop(open);
}

#[tokio::test]
async fn what_comes_during_a_handshake_counts_until_it_is_over() {
    let instance = Scripted::echo().await;
    let authority = Authority::new();
    let proxy = Setup::to(&[instance.address]).listen(vec![authority.listen("a.test")]).start().await;
    // A greeting of 60,000 bytes that never becomes whole, in records of 16 KiB.
    let mut hello = vec![1, 0, 0xea, 0x60];
    hello.resize(50_000, 0);
    let records: Vec<u8> = hello
        .chunks(16 * 1024)
        .flat_map(|piece| [&[22, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat())
        .collect();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut stream = soon("a connection", TcpStream::connect(proxy.address)).await.unwrap();
        stream.write_all(&records).await.unwrap();
        clients.push(stream);
    }
    until("they count", || proxy.memory().held() >= 15 * 50_000).await;
    drop(clients);
    until("it is given back", || proxy.memory().held() < 50_000).await;
}
