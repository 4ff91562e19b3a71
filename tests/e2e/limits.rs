//! Clients that are slow, silent, or many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::forward::patience::Patience;
use pointsman::server::Listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::pki::{Authority, greet, greet_over};
use crate::harness::{ANY, Client, Proxy, Scripted, Setup, ok, read_request, soon};

#[tokio::test]
async fn a_slow_head_is_408_and_an_idle_connection_is_closed() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address])
        .limits(|l| {
            l.head = 200;
            l.keep_alive = 300;
        })
        .start()
        .await;
    let mut slow = proxy.client().await;
    slow.send("GET / HTTP/1.1\r\nhost: a\r\n").await;
    assert_eq!(slow.reply().await.status, 408);
    assert!(slow.is_closed().await);

    let mut idle = proxy.client().await;
    let started = Instant::now();
    assert!(idle.is_closed().await);
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());

    let mut used = proxy.client().await;
    used.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(used.reply().await.status, 200);
    assert!(used.is_closed().await);
    let closed = "pointsman_connections_closed_total{reason=\"keep_alive\"} 2";
    proxy.counts(closed).await;
    assert!(proxy.metric("pointsman_connections_closed_total{reason=\"drain\"}").is_none());
}

#[tokio::test]
async fn a_slow_body_is_408_and_not_the_instances_fault() {
    let instance = Scripted::echo().await;
    let rules = format!("{}eject: {{consecutive_5xx: 1}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).settings(|s| s.patience.idle = 200).start().await;
    let reply = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nsome").await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (408, Some("client_timeout")));
    assert!(proxy.transitions.all().is_empty());
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_after_a_while_and_one_that_flows_is_not() {
    let instance = Scripted::echo().await;
    let patience = Patience { idle: 10_000, whole: 400, rate: 0 };
    let proxy = Setup::to(&[instance.address]).settings(move |s| s.patience = patience).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await;
    let (mut reading, mut writing) = client.stream.into_split();
    let trickling = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = [0; 12];
    soon("the answer", reading.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    trickling.abort();

    // Fifty bytes a second are worth a second more each, and the client sends more than that.
    let patience = Patience { whole: 3_000, rate: 50, ..patience };
    let proxy = Setup::to(&[instance.address]).settings(move |s| s.patience = patience).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200\r\n\r\n").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        client.send("0123456789").await;
    }
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_slow_upload_that_moves_is_not_cut_by_the_limit_on_the_answer() {
    let instance = Scripted::echo().await;
    let rules = format!("{}timeout: {{first_byte: 1s}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await;
    for byte in ["h", "e", "l", "l", "o"] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.send(byte).await;
    }
    assert_eq!(client.reply().await.text(), "POST / HTTP/1.1 hello");
}

#[tokio::test]
async fn the_system_holds_little_for_a_client_that_does_not_read_and_for_an_instance_that_does_not() {
    let answers = || {
        Scripted::raw(move |mut stream, _| async move {
            read_request(&mut stream, &mut Vec::new(), 0, 0).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
            until_stuck(&mut stream).await;
            std::future::pending().await
        })
    };
    // What is beyond `unsent` and the pieces that are written at a time is more than the system was to take.
    let most = (128 + 384) * 1024;
    let instance = answers().await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.unsent = 0).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    soon("the system takes what it likes", holds_beyond(&client.stream, 2 * most)).await;

    let instance = answers().await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.unsent = 128 * 1024).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    soon("more than the client's system takes", holds_beyond(&client.stream, 0)).await;
    let most_seen = most_held(&client.stream).await;
    assert!(most_seen < most, "bytes that the system holds for a client: {most_seen}");

    let (keep, mut kept) = tokio::sync::mpsc::channel::<TcpStream>(1);
    let instance = Scripted::raw(move |stream, _| {
        let keep = keep.clone();
        async move {
            let _ = keep.send(stream).await;
        }
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await;
    let uploading = tokio::spawn(async move { until_stuck(&mut client.stream).await });
    let stream = soon("a connection to the instance", kept.recv()).await.unwrap();
    soon("more than the instance's system takes", holds_beyond(&stream, 0)).await;
    let most_seen = most_held(&stream).await;
    assert!(most_seen < most, "bytes that the system holds for an instance: {most_seen}");
    uploading.await.unwrap();
}

/// Writes until nothing is taken any more.
async fn until_stuck(stream: &mut TcpStream) {
    let some = [0; 16 * 1024];
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(1_500), stream.write(&some)).await {}
}

/// Until the other end's system holds more than so many bytes for this one.
async fn holds_beyond(stream: &TcpStream, bytes: usize) {
    while held(stream) <= bytes {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The most bytes that the other end's system holds for this one within the next second.
async fn most_held(stream: &TcpStream) -> usize {
    let mut most = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(held(stream));
    }
    most
}

/// How many bytes the other end wrote that this one's system has not taken: `tx_queue` of `proc_net_tcp(5)`.
fn held(stream: &TcpStream) -> usize {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let (here, there) = (port(stream.local_addr().unwrap()), port(stream.peer_addr().unwrap()));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = sockets.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let ends = columns.next()?.ends_with(&there) && columns.next()?.ends_with(&here);
        ends.then(|| columns.nth(1)).flatten()?.split_once(':').map(|(unsent, _)| unsent)
    });
    usize::from_str_radix(queue.expect("a socket of this process"), 16).unwrap()
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let (gone, left) = tokio::sync::oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let instance = Scripted::raw(move |mut stream, _| {
        let gone = gone.lock().unwrap().take();
        async move {
            read_request(&mut stream, &mut Vec::new(), 0, 0).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            if let Some(gone) = gone {
                let _ = gone.send(());
            }
        }
    })
    .await;
    let proxy = Setup::to(&[instance.address]).limits(|l| l.write_idle = 300).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    soon("the cut", left).await.unwrap();
    proxy.counts("pointsman_write_cuts_total{of=\"connection\"} 1").await;
}

#[tokio::test]
async fn a_rested_connection_serves_on() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|l| l.rest_after = 50).start().await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "x");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    client.send("GET / HTTP/1.1\r\nho").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    client.send("st: a\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "x");
}

#[tokio::test]
async fn an_old_connection_gets_one_last_answer() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|l| l.connection_age = 1_500).start().await;
    let mut client = proxy.client().await;
    let mut answers = 0;
    let last = loop {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let reply = client.reply().await;
        if reply.status == 0 {
            break None;
        }
        answers += 1;
        if reply.field("connection").as_deref() == Some("close") {
            break Some(reply);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(answers > 1);
    assert!(last.is_none_or(|reply| reply.status == 200));
    let closed = "pointsman_connections_closed_total{reason=\"connection_age\"} 1";
    proxy.counts(closed).await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_one_ends() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|l| l.connections = 2).start().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
        held.push(client);
    }
    let mut third = Client::connect(proxy.address).await;
    third.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.reply()).await;
    assert!(early.is_err(), "it waits");
    held.pop();
    assert_eq!(third.reply().await.status, 200);
}

#[tokio::test]
async fn one_address_holds_so_many_connections_counted_behind_the_proxy_protocol() {
    let instance = Scripted::http(|_| ok("x")).await;
    let behind = Listen { proxy_protocol: true, ..Listen::plain(ANY) };
    let setup =
        Setup::to(&[instance.address]).listen(vec![behind, Listen::plain(ANY)]).limits(|limits| limits.per_address = 2);
    let proxy = setup.settings(|s| s.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).start().await;
    let from = async |source: &str| {
        let mut client = Client::connect(proxy.addresses[0]).await;
        client.send(format!("PROXY TCP4 {source} 192.0.2.9 1 2\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let status = client.reply().await.status;
        (client, status)
    };
    let held = [from("192.0.2.1").await, from("192.0.2.1").await];
    assert!(held.iter().all(|(_, status)| *status == 200));
    assert_eq!(from("192.0.2.1").await.1, 0, "closed without a word");
    assert_eq!(from("192.0.2.2").await.1, 200);
    let refused = "pointsman_refusals_total{reason=\"connections_per_address\"}";
    assert_eq!(proxy.metric(refused), Some(format!("{refused} 1")));
    let mut trusted = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(proxy.addresses[1]).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200, "a trusted proxy has no limit");
        trusted.push(client);
    }
    drop(held);
    soon("room again", async {
        while from("192.0.2.1").await.1 != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_spread_over_the_workers() {
    let instance = Scripted::http(|_| ok("x")).await;
    let mut setup = Setup::to(&[instance.address]);
    setup.workers = 2;
    let proxy = setup.start().await;
    let mut held = Vec::new();
    for _ in 0..60 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
        held.push(client);
    }
    let open: Vec<u64> = (0..2).map(|worker| proxy.metrics.worker_cells(worker).connections.value()).collect();
    assert_eq!(open.iter().sum::<u64>(), 60);
    assert!(open.iter().all(|count| *count >= 20), "{open:?}");
}

#[tokio::test]
async fn a_tls_client_that_reads_nothing_is_let_go_when_its_next_head_is_late() {
    // The end of TLS is bytes, too, and they have no room any more. Which answer leaves just that depends on what the
    // system holds: one of these sizes does.
    let instance = Scripted::http(|request| {
        let size: usize = request.line()[5..].split(' ').next().unwrap().parse().unwrap();
        ok(&"x".repeat(size))
    })
    .await;
    let authority = Authority::new();
    let listen = vec![authority.listen("a.test")];
    let setup = Setup::to(&[instance.address]).listen(listen).limits(|limits| limits.head = 300);
    let proxy = setup.start().await;
    let config = Arc::new(authority.trusted());
    let mut clients = Vec::new();
    for size in (1..200).map(|n| n * 16 * 1024) {
        let mut client = greet(&config, proxy.address, "a.test").await.unwrap();
        client.send(format!("GET /{size} HTTP/1.1\r\nhost: a.test\r\n\r\n")).await;
        clients.push(client);
    }
    // The answers that can are handed to the system meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for client in &mut clients {
        client.send("GET /").await;
    }
    let value = |name: &str| -> usize {
        let line = proxy.metric(name).unwrap_or_default();
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).map_or(0, |value| value as usize)
    };
    let late = "pointsman_refusals_total{reason=\"client_timeout\"}";
    proxy.counts(late).await;
    soon("the end of each of them", async {
        while value("pointsman_connections{") + value(late) > clients.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_limit_of_zero_is_none_also_before_a_connection_is_served() {
    let instance = Scripted::http(|_| ok("x")).await;
    let authority = Authority::new();
    let listen = Listen { proxy_protocol: true, ..authority.listen("a.test") };
    let setup = Setup::to(&[instance.address]).listen(vec![listen]);
    let setup = setup.settings(|settings| settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]);
    let proxy = setup.limits(|limits| (limits.head, limits.tls_handshake) = (0, 0)).start().await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    for part in ["PROXY TCP4 10.0.0.1 ", "10.0.0.2 1 2\r\n"] {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(part.as_bytes()).await.unwrap();
    }
    let mut client = greet_over(&Arc::new(authority.trusted()), stream, "a.test").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "x");
}
