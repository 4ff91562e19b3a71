//! WebSocket and other changes of protocol.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use pointsman::engine::instance::Status;

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
    client.send("hello").await;
    assert_eq!(client.raw(5).await, b"hello");
    let started = std::time::Instant::now();
    assert!(client.is_closed().await);
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    let cut = "pointsman_errors_total{service=\"web\",detail=\"stream_idle\"} 1";
    proxy.counts(cut).await;
    let bytes = |of: &str| {
        proxy.metric(&format!("pointsman_{of}_bytes_total{{")).map(|line| line[line.rfind(' ').unwrap()..].to_owned())
    };
    assert_eq!((bytes("request").as_deref(), bytes("response").as_deref()), (Some(" 5"), Some(" 12")));
    assert!(proxy.transitions.all().is_empty(), "silence is nobody's fault");
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

#[tokio::test]
async fn any_protocol_of_the_list_is_tunnelled_and_no_other() {
    let instance = Scripted::raw(|mut stream, _| async move {
        let seen = read_request(&mut stream, &mut Vec::new(), 0, 0).await.unwrap();
        let Some(asked) = seen.field("upgrade") else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain").await;
            return;
        };
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {asked}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&said).await.unwrap();
    })
    .await;
    let upgrades = ["websocket", "tailscale-control-protocol"].map(str::to_owned).to_vec();
    let proxy = Setup::to(&[instance.address]).settings(|settings| settings.upgrades = upgrades).start().await;
    for protocol in ["Tailscale-Control-Protocol", "websocket"] {
        let mut client = proxy.client().await;
        client
            .send(format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\nping"))
            .await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.field("upgrade").as_deref()), (101, Some(protocol)));
        assert_eq!(client.raw(4).await, b"ping");
    }
    let reply = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: spdy/3\r\n\r\n").await;
    assert_eq!(reply.text(), "plain");
}

/// Accepts the change, then echoes frames; what it got is told at its end.
async fn frames() -> (Scripted, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = tokio::sync::mpsc::channel(8);
    let instance = Scripted::raw(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            read_request(&mut stream, &mut Vec::new(), 0, 0).await.unwrap();
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The first half of a message of four bytes; the other half comes when the client has said something.
            stream.write_all(&[0x82, 4, 1, 2]).await.unwrap();
            let mut got = Vec::new();
            let mut some = [0u8; 256];
            while let Ok(n @ 1..) = stream.read(&mut some).await {
                if got.is_empty() {
                    stream.write_all(&[3, 4]).await.unwrap();
                }
                got.extend(&some[..n]);
            }
            let _ = tell.send(got).await;
        }
    })
    .await;
    (instance, told)
}

/// "Going away" to the client is unmasked; to the instance it is masked.
fn is_masked_goodbye(bytes: &[u8]) -> bool {
    matches!(bytes, [0x88, 0x82, a, b, _, _, x, y] if (a ^ x, b ^ y) == (0x03, 0xE9))
}

#[tokio::test]
async fn a_websocket_of_its_age_is_told_between_two_frames() {
    let (instance, mut told) = frames().await;
    let rules = format!("{}timeout: {{max_stream_age: 300ms}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    assert_eq!(client.reply().await.status, 101);
    assert_eq!(client.raw(4).await, [0x82, 4, 1, 2]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    // The age is over, and still nothing was put into the message that is under way. The client's own frame ends it:
    // the instance is told before it, so it is not passed on; its goodbye makes the instance send the rest.
    assert_eq!(client.raw(6).await, [3, 4, 0x88, 2, 0x03, 0xE9]);
    assert!(client.is_closed().await);
    drop(client);
    let got = soon("what the instance got", told.recv()).await.unwrap();
    assert!(is_masked_goodbye(&got), "{got:?}");
}

#[tokio::test]
async fn a_drain_that_is_over_says_goodbye_to_websockets() {
    let (instance, mut told) = frames().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    assert_eq!(client.reply().await.status, 101);
    client.send([0x81, 0x81, 0, 0, 0, 0, b'x']).await;
    assert_eq!(client.raw(6).await, [0x82, 4, 1, 2, 3, 4]);
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(3)));
    assert_eq!(client.raw(4).await, [0x88, 2, 0x03, 0xE9]);
    drop(client);
    assert_eq!(draining.await.unwrap().cut, 1);
    let got = soon("what the instance got", told.recv()).await.unwrap();
    assert!(got.starts_with(&[0x81, 0x81]) && is_masked_goodbye(&got[7..]), "{got:?}");
}

#[tokio::test]
async fn an_event_stream_of_its_age_is_cut_and_its_instance_is_not_blamed() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(b"8\r\ndata: 1\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let rules =
        format!("{}timeout: {{max_stream_age: 300ms}}\neject: {{consecutive_5xx: 1}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let reply = proxy.get("/events").await;
    assert_eq!((reply.status, reply.whole), (200, false));
    assert!(!reply.body.is_empty() && proxy.transitions.all().is_empty());
    assert!(proxy.metric("pointsman_errors_total{service=\"web\",detail=\"max_stream_age\"}").is_some());
}

fn tunnels(proxy: &Proxy) -> Option<String> {
    proxy.metric("pointsman_tunnels{").and_then(|line| Some(line.rsplit(' ').next()?.to_owned()))
}

#[tokio::test]
async fn a_websocket_outlives_its_instances_leave_and_is_closed_at_its_age() {
    type Leave = fn(&Proxy, &mut Setup);
    let ways: [(&str, Leave); 3] = [
        ("the catalog no longer names it", |_, setup| drop(setup.instances.remove(0))),
        ("an operator drains it", |proxy, _| assert!(proxy.live(0).set_drained(true))),
        ("it is in maintenance", |_, setup| setup.instances[0].status = Status::Maintenance),
    ];
    for (what, leave) in ways {
        let (leaving, other) = (echo().await, Scripted::echo().await);
        let rules = "service: web\npools: {first: id == web-0, other: id == web-1}\ntimeout: {max_stream_age: 3s}\n\
                     rules: [{name: all, to: [first, other]}]\n";
        let mut setup = Setup::to(&[leaving.address, other.address]).rules(rules);
        let proxy = Setup::to(&[leaving.address, other.address]).rules(rules).start().await;
        let begun = std::time::Instant::now();
        let mut client = proxy.client().await;
        client.send(UPGRADE).await;
        assert_eq!(client.reply().await.status, 101, "{what}");
        assert_eq!(client.raw(7).await, b"welcome");
        leave(&proxy, &mut setup);
        proxy.publish(&setup);
        assert!(proxy.get("/").await.text().starts_with("GET"), "{what}: others go elsewhere");
        // Past the sweep that lets go of connections to whom the catalog does not name.
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        client.send([0x82, 0x81, 0, 0, 0, 0, b'x']).await;
        assert_eq!(client.raw(7).await, [0x82, 0x81, 0, 0, 0, 0, b'x'], "{what}: it goes on");
        assert_eq!(tunnels(&proxy).as_deref(), Some("1.0"), "{what}");
        soon("the end", client.stream.read_to_end(&mut Vec::new())).await.unwrap();
        let age = begun.elapsed();
        assert!(age >= Duration::from_millis(2_900) && age < Duration::from_secs(8), "{what}: {age:?}");
        soon("no tunnel", async {
            while tunnels(&proxy).as_deref() != Some("0.0") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_event_stream_may_pause_for_longer_than_other_answers_and_not_for_ever() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            stream.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let rules = format!("{}timeout: {{idle: 100ms, stream_idle: 2s}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let asked = std::time::Instant::now();
    let reply = proxy.get("/events").await;
    assert_eq!((reply.status, reply.whole, reply.text().as_str()), (200, false, "data: 1\n\ndata: 1\n\n"));
    assert!(asked.elapsed() >= Duration::from_millis(2_900), "{:?}", asked.elapsed());
}
