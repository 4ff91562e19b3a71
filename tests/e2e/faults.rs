//! Instances that fail, and clients that leave.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pointsman::engine::health::Kind;
use tokio::io::AsyncWriteExt;

use crate::harness::{Act, PATIENCE, Proxy, Scripted, Seen, Setup, instance, ok, read_request, reset, soon, status};
use crate::ports::unused;

/// A listener whose queue is full: connecting to it hangs.
async fn blackhole() -> (SocketAddr, Vec<std::net::TcpStream>, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        held.push(stream);
    }
    (address, held, socket)
}

#[tokio::test]
async fn refused_and_reset_requests_go_to_another_instance() {
    let resetting = Scripted::http(|_| Act::Reset).await;
    let good = Scripted::http(|_| ok("good")).await;
    let proxy = Proxy::to(&[unused(), resetting.address, good.address]).await;
    for turn in 0..100 {
        let reply = proxy.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "good"), "request {turn}");
    }
    let moved = proxy.transitions.all();
    let ejected = |id: &str| moved.iter().any(|(of, t)| of == id && matches!(t.kind, Kind::Ejected { .. }));
    assert!(ejected("web-0") && ejected("web-1") && !ejected("web-2"), "{moved:?}");
}

#[tokio::test]
async fn an_instance_killed_under_load_fails_no_get() {
    let first = Scripted::echo().await;
    let second = Scripted::echo().await;
    let proxy = Arc::new(Proxy::to(&[first.address, second.address]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..8)
        .map(|_| {
            let (proxy, stop) = (Arc::clone(&proxy), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut client = proxy.client().await;
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
                    let reply = client.reply().await;
                    assert_eq!((reply.status, reply.whole), (200, true), "{}", reply.head);
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    soon("load on both", async {
        while first.requests().len() < 200 || second.requests().len() < 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.kill().await;
    let before = second.requests().len();
    soon("load on the other", async {
        while second.requests().len() < before + 500 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        assert!(soon("the load's end", load).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn dead_pooled_connections_cost_nothing() {
    // Closes every connection after three answers, without saying so.
    let instance = Scripted::http(|seen| {
        let Act::Write(answer) = ok("x") else { unreachable!() };
        if seen.turn == 2 { Act::WriteThenClose(answer) } else { Act::Write(answer) }
    })
    .await;
    let rules = format!("{}retry: {{attempts: 1}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    for turn in 0..200 {
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200, "request {turn}");
    }
    assert!(proxy.transitions.all().is_empty(), "not the instance's fault");
}

#[tokio::test]
async fn a_post_that_may_have_arrived_is_never_sent_again() {
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&ids);
    // Takes each request; every other one is reset after it was read.
    let act = move |seen: &Seen| {
        let id = String::from_utf8_lossy(&seen.body).into_owned();
        let odd = id.as_bytes().last().is_some_and(|last| last % 2 == 1);
        noted.lock().unwrap().push(id);
        if odd { Act::Reset } else { ok("taken") }
    };
    let act = Arc::new(act);
    let (one, two) = (Arc::clone(&act), act);
    let first = Scripted::http(move |seen| one(seen)).await;
    let second = Scripted::http(move |seen| two(seen)).await;
    let rules = format!("{}eject: {{consecutive_5xx: 0, success_rate: 0%}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[first.address, second.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    for id in 0..100 {
        let body = id.to_string();
        let length = body.len();
        client.send(format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {length}\r\n\r\n{body}")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, if id % 2 == 1 { 502 } else { 200 }, "request {id}");
    }
    let ids = ids.lock().unwrap();
    assert_eq!(ids.len(), ids.iter().collect::<HashSet<_>>().len(), "an id was seen twice: {ids:?}");
}

#[tokio::test]
async fn a_post_that_could_not_be_sent_goes_elsewhere() {
    let good = Scripted::echo().await;
    let proxy = Proxy::to(&[unused(), good.address]).await;
    for _ in 0..20 {
        let reply = proxy.ask("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(reply.text(), "POST / HTTP/1.1 hi");
    }
}

#[tokio::test]
async fn a_put_is_repeated_with_its_whole_body_if_that_is_small() {
    let resetting = Scripted::http(|_| Act::Reset).await;
    let good = Scripted::http(|seen| ok(&seen.body.len().to_string())).await;
    let rules = format!("{}eject: {{consecutive_5xx: 0, success_rate: 0%}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[resetting.address, good.address]).rules(&rules).start().await;
    let put =
        |size: usize| format!("PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: {size}\r\n\r\n{}", "x".repeat(size));
    let pieces = |count: usize| {
        format!(
            "PUT / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
            "1\r\nx\r\n".repeat(count)
        )
    };
    let (mut failed, mut failed_in_pieces) = (0, 0);
    for _ in 0..20 {
        let small = proxy.ask(&put(60_000)).await;
        assert_eq!((small.status, small.text().as_str()), (200, "60000"));
        let large = proxy.ask(&put(200_000)).await;
        failed += usize::from(large.status == 502);
        let few = proxy.ask(&pieces(1_000)).await;
        assert_eq!((few.status, few.text().as_str()), (200, "1000"));
        let many = proxy.ask(&pieces(3_000)).await;
        failed_in_pieces += usize::from(many.status == 502);
    }
    assert!(failed > 0 && failed_in_pieces > 0, "a body that was not kept cannot be repeated");
}

#[tokio::test]
async fn an_answer_in_the_policys_list_is_tried_elsewhere_and_others_are_not() {
    let busy = Scripted::http(|_| status(503)).await;
    let good = Scripted::http(|_| ok("good")).await;
    let rules = format!("{}eject: {{consecutive_5xx: 0, success_rate: 0%}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[busy.address, good.address]).rules(&rules).start().await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    let failing = Scripted::http(|_| status(500)).await;
    let proxy = Setup::to(&[failing.address]).rules(&rules).start().await;
    assert_eq!(proxy.get("/").await.status, 500);
    assert_eq!(failing.requests().len(), 1);
}

#[tokio::test]
async fn the_last_failing_answer_is_passed_on_as_it_is() {
    let busy =
        Scripted::http(|_| Act::Write(b"HTTP/1.1 503 Busy\r\nx-why: full\r\ncontent-length: 4\r\n\r\nfull".to_vec()))
            .await;
    let proxy = Proxy::to(&[busy.address]).await;
    let reply = proxy.get("/").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.field("x-why").as_deref()), (503, "full", Some("full")));
}

#[tokio::test]
async fn the_last_try_goes_to_the_next_pool() {
    let gray = Scripted::http(|_| status(503)).await;
    let gray_too = Scripted::http(|_| status(503)).await;
    let stable = Scripted::http(|_| ok("stable")).await;
    let rules = "service: web\npools: {gray: v == 2, stable: v == 1}\nrules:\n  - name: testers\n    \
                 to: [gray, stable]\neject: {consecutive_5xx: 0, success_rate: 0%}\nretry: {attempts: 2}\n";
    let instances = vec![
        instance("g1", gray.address, &[("v", "2")]),
        instance("g2", gray_too.address, &[("v", "2")]),
        instance("s", stable.address, &[("v", "1")]),
    ];
    let proxy = Setup { instances, ..Setup::default() }.rules(rules).start().await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.text(), "stable");
    }
    assert_eq!(gray.requests().len() + gray_too.requests().len(), 20);
}

#[tokio::test]
async fn a_blackholed_address_costs_at_most_the_connect_limit() {
    let (address, _held, _socket) = blackhole().await;
    let good = Scripted::http(|_| ok("good")).await;
    let rules = format!("{}timeout: {{connect: 200ms}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[address, good.address]).rules(&rules).start().await;
    for _ in 0..8 {
        let started = Instant::now();
        assert_eq!(proxy.get("/").await.status, 200);
        assert!(started.elapsed() < Duration::from_millis(1_000), "{:?}", started.elapsed());
    }
    let only = Setup::to(&[address]).rules(&rules).start().await;
    let reply = only.get("/").await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (504, Some("upstream_timeout")));
}

#[tokio::test]
async fn an_instance_that_says_nothing_is_given_up() {
    let silent = Scripted::http(|_| Act::Hang).await;
    let rules = format!("{}timeout: {{first_byte: 200ms}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[silent.address]).rules(&rules).start().await;
    let started = Instant::now();
    let reply = proxy.get("/").await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (504, Some("upstream_timeout")));
    assert!(started.elapsed() >= Duration::from_millis(190) && started.elapsed() < Duration::from_secs(2));
    assert_eq!(silent.requests().len(), 1, "a timeout is not retried by default");
}

#[tokio::test]
async fn a_cut_answer_reaches_the_client_as_a_cut_one() {
    for (what, answer) in [
        ("sized", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"),
        ("chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("a bad chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"),
    ] {
        let instance = Scripted::http(move |_| Act::WriteThenClose(answer.into())).await;
        let proxy = Proxy::to(&[instance.address]).await;
        let reply = proxy.get("/").await;
        assert_eq!((reply.status, reply.whole), (200, false), "{what}");
    }
}

#[tokio::test]
async fn a_stalled_answer_is_cut() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
        std::future::pending::<()>().await;
    })
    .await;
    let rules = format!("{}timeout: {{idle: 200ms}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    assert!(!proxy.get("/").await.whole);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_request_without_blame() {
    let (gone, left) = tokio::sync::oneshot::channel();
    let gone = Mutex::new(Some(gone));
    let instance = Scripted::raw(move |mut stream, _| {
        let gone = gone.lock().unwrap().take();
        async move {
            read_request(&mut stream, &mut Vec::new(), 0, 0).await;
            use tokio::io::AsyncReadExt;
            let read = stream.read(&mut [0u8; 16]).await;
            if let Some(gone) = gone {
                let _ = gone.send(read.unwrap_or(0));
            }
        }
    })
    .await;
    let rules = format!("{}eject: {{consecutive_5xx: 1}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    soon("the request", async {
        while instance.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(client);
    assert_eq!(soon("the end of the instance's connection", left).await.unwrap(), 0);
    assert!(proxy.transitions.all().is_empty());
}

#[tokio::test]
async fn a_broken_upload_is_the_clients_fault() {
    let instance = Scripted::echo().await;
    let rules = format!("{}eject: {{consecutive_5xx: 1}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let reply = proxy.ask("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n").await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (400, Some("client_body")));
    assert!(proxy.transitions.all().is_empty());
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_body_is_held_against_the_instance() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
        // The reset must not overtake the bytes.
        use tokio::io::AsyncReadExt;
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0u8; 1])).await;
        reset(&stream);
    })
    .await;
    let rules = format!("{}eject: {{consecutive_5xx: 1, success_rate: 0%}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    assert!(!proxy.get("/").await.whole);
    tokio::time::timeout(PATIENCE, async {
        while proxy.transitions.all().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the instance is ejected");
}

#[tokio::test]
async fn retries_end_with_the_budget() {
    let resetting = Scripted::http(|_| Act::Reset).await;
    let other = Scripted::http(|_| Act::Reset).await;
    let rules = format!("{}eject: {{consecutive_5xx: 0, success_rate: 0%}}\n", crate::harness::ONE_POOL);
    let proxy = Setup::to(&[resetting.address, other.address]).rules(&rules).start().await;
    for _ in 0..150 {
        assert_eq!(proxy.get("/").await.status, 502);
    }
    let tries = resetting.requests().len() + other.requests().len();
    assert!((190..=290).contains(&tries), "150 requests, at most 60 retries or so: {tries} tries");
}

#[tokio::test]
async fn a_trial_that_fails_is_retried_also_when_the_budget_is_spent() {
    // A 429 ejects nobody and spends the budget; the first one's other answers eject it.
    let act = |sick: bool| {
        move |seen: &Seen| match seen.line() {
            line if line.starts_with("GET /spend ") => status(429),
            _ if sick => status(503),
            _ => ok("well"),
        }
    };
    let (sick, well) = (Scripted::http(act(true)).await, Scripted::http(act(false)).await);
    let rules = format!(
        "{}retry: {{budget: 0%, on: [connect, 429, 503]}}\n\
         eject: {{consecutive_5xx: 1, success_rate: 0%, base_ejection_time: 100ms, max_ejection_time: 100ms}}\n",
        crate::harness::ONE_POOL
    );
    let proxy = Setup::to(&[sick.address, well.address]).rules(&rules).start().await;
    let refused = || proxy.metric("pointsman_retries_refused_total{service=\"web\",reason=\"budget\"}");
    for _ in 0..60 {
        assert_eq!(proxy.get("/spend").await.status, 429);
    }
    assert!(refused().is_some(), "the budget is spent");
    let mut lost = 0;
    while proxy.transitions.all().is_empty() {
        lost += usize::from(proxy.get("/").await.status == 503);
    }
    assert_eq!(lost, 1, "nothing is left for the request that found it sick");
    let failed = || proxy.metric("pointsman_probes_total{service=\"web\",result=\"failure\"}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while failed().is_none() {
        proxy.publish_health();
        assert_eq!(proxy.get("/").await.status, 200, "the client is not told of the trial");
        assert!(Instant::now() < deadline, "no trial: {:?}", proxy.transitions.all());
    }
}
