//! Copies for a mirror: they get their share, and whatever becomes of them costs the request nothing.

use std::time::Duration;

use crate::harness::{Act, PATIENCE, Proxy, Scripted, Setup, instance, ok};

fn rules(share: &str) -> String {
    format!(
        "service: web\npools: {{live: color == blue, next: color == green}}\n\
         headers: {{request: {{remove: [x-pointsman-mirror], set: {{x-site: eu}}}}}}\nrewrite: {{path: /inner}}\n\
         rules:\n  - {{name: all, to: live, mirror: {{to: next, share: {share}}}}}\n"
    )
}

async fn start(share: &str, live: &Scripted, next: std::net::SocketAddr) -> Proxy {
    let setup = Setup {
        instances: vec![
            instance("live", live.address, &[("color", "blue")]),
            instance("next", next, &[("color", "green")]),
        ],
        ..Setup::default()
    };
    setup.rules(&rules(share)).start().await
}

/// Waits until copies that ended so are counted.
async fn counted(proxy: &Proxy, result: &str, at_least: u64) {
    let start = format!("pointsman_mirrored_total{{service=\"web\",rule=\"all\",result=\"{result}\"}} ");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let line = proxy.metric(&start).unwrap_or_default();
        let count = line.strip_prefix(&start).and_then(|count| count.parse().ok()).unwrap_or(0);
        if count >= at_least {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{result}: {count} of {at_least}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_copy_is_the_request_as_it_was_sent_with_a_mark() {
    let (live, next) = (Scripted::echo().await, Scripted::http(|_| ok("nobody reads this")).await);
    let proxy = start("100%", &live, next.address).await;
    let request = "POST /x?y=1 HTTP/1.1\r\nhost: shop\r\nx-pointsman-mirror: forged\r\ncontent-length: 5\r\n\r\nhello";
    let reply = proxy.ask(request).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"POST /inner/x?y=1 HTTP/1.1 hello"[..]));
    proxy.ask("POST /c HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n").await;
    proxy.get("/bare").await;
    counted(&proxy, "answered", 3).await;
    let mut copies = next.requests();
    copies.sort_by(|a, b| a.line().cmp(b.line()));
    let lines: Vec<&str> = copies.iter().map(|copy| copy.line()).collect();
    assert_eq!(lines, ["GET /inner/bare HTTP/1.1", "POST /inner/c HTTP/1.1", "POST /inner/x?y=1 HTTP/1.1"]);
    let bodies: Vec<&[u8]> = copies.iter().map(|copy| copy.body.as_slice()).collect();
    assert_eq!(bodies, [&b""[..], b"ab", b"hello"]);
    for copy in &copies {
        assert_eq!(copy.field("x-pointsman-mirror").as_deref(), Some("true"));
        assert_eq!((copy.field("x-site").as_deref(), copy.field("host").as_deref()), (Some("eu"), Some("shop")));
    }
    assert!(live.requests().iter().all(|request| request.field("x-pointsman-mirror").is_none()));
}

#[tokio::test]
async fn the_share_is_a_share_and_zero_is_none() {
    let (live, next) = (Scripted::echo().await, Scripted::echo().await);
    let proxy = start("25%", &live, next.address).await;
    let mut client = proxy.client().await;
    for _ in 0..400 {
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
    }
    counted(&proxy, "answered", 60).await;
    drop(client);
    let copies = next.requests().len();
    assert!((60..=140).contains(&copies), "{copies} of 400");

    let (live, none) = (Scripted::echo().await, Scripted::echo().await);
    let proxy = start("0%", &live, none.address).await;
    proxy.get("/").await;
    assert_eq!((live.requests().len(), none.connections()), (1, 0));
}

#[tokio::test]
async fn a_dead_mirror_fails_nothing_and_is_not_ejected() {
    let live = Scripted::echo().await;
    let dying = Scripted::http(|_| Act::Reset).await;
    let proxy = start("100%", &live, dying.address).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    counted(&proxy, "failed", 20).await;
    assert!(proxy.transitions.all().is_empty(), "copies are no evidence");

    let gone = dying.address;
    dying.kill().await;
    let proxy = start("100%", &live, gone).await;
    assert_eq!(proxy.get("/").await.status, 200);
    counted(&proxy, "failed", 1).await;
}

#[tokio::test]
async fn a_mirror_that_never_answers_takes_a_bounded_number_of_copies_and_no_time() {
    let (live, stuck) = (Scripted::echo().await, Scripted::http(|_| Act::Hang).await);
    let proxy = start("100%", &live, stuck.address).await;
    let mut client = proxy.client().await;
    let asked = async {
        for _ in 0..100 {
            client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            assert_eq!(client.reply().await.status, 200);
        }
    };
    // One copy lives for ten seconds: the hundred would take many minutes if anything waited for one.
    tokio::time::timeout(PATIENCE, asked).await.expect("no request waits for a copy");
    counted(&proxy, "busy", 36).await;
    assert!(stuck.connections() <= 64, "{}", stuck.connections());
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_copied_and_nobody_is_no_error() {
    let (live, next) = (Scripted::echo().await, Scripted::echo().await);
    let proxy = start("100%", &live, next.address).await;
    let large = "x".repeat(70 * 1024);
    let request = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n{large}", large.len());
    assert_eq!(proxy.ask(&request).await.status, 200);
    counted(&proxy, "too_large", 1).await;
    assert_eq!(next.connections(), 0);

    let proxy = Setup { instances: vec![instance("live", live.address, &[("color", "blue")])], ..Setup::default() };
    let proxy = proxy.rules(&rules("100%")).start().await;
    assert_eq!(proxy.get("/").await.status, 200);
    counted(&proxy, "no_instance", 1).await;
}
