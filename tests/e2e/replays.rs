//! Bodies that are sent once more, and answers that are bounded while they flow.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::h2::{read, with};
use crate::harness::{Act, ONE_POOL, Scripted, Setup, instance, ok, read_request, soon, status};

/// 60 KiB in pieces of 2 KiB.
fn pieces() -> (String, usize) {
    let piece = format!("800\r\n{}\r\n", "x".repeat(0x800));
    let head = "PUT / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    (format!("{head}{}0\r\n\r\n", piece.repeat(30)), 30 * 0x800)
}

#[tokio::test]
async fn a_replayed_body_is_whole_although_the_answer_begins_before_it_is_read() {
    // The first instance takes the whole body and fails; the second answers at once and reads afterwards, little by little.
    let failing = Scripted::http(|_| status(503)).await;
    let builder = h2::server::Builder::new().initial_window_size(1_024).clone();
    let (reading, _) = with(builder, |request, mut respond, _| async move {
        let mut sink = respond.send_response(Response::new(()), false).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (body, _) = read(&mut request.into_body()).await.unwrap();
        sink.send_data(Bytes::from(body.len().to_string()), true).unwrap();
    })
    .await;
    let rules = "service: web\npools: {first: id == web-0, other: id == web-1}\n\
                 rules: [{name: all, to: [first, other]}]\n";
    let instances =
        vec![instance("web-0", failing.address, &[]), instance("web-1", reading.address, &[("proto", "h2c")])];
    let proxy = Setup { instances, ..Setup::default() }.rules(rules).start().await;
    let (request, length) = pieces();
    let reply = proxy.ask(&request).await;
    assert_eq!((reply.status, reply.text()), (200, length.to_string()), "{}", reply.head);
    assert_eq!(failing.requests()[0].body.len(), length);
}

#[tokio::test]
async fn each_instance_that_a_body_is_sent_to_has_its_own_time_to_answer() {
    let slowly = |code: u16| {
        Scripted::raw(move |mut stream, _| async move {
            read_request(&mut stream, &mut Vec::new(), 0, 0).await;
            tokio::time::sleep(Duration::from_millis(2_200)).await;
            let _ = stream.write_all(format!("HTTP/1.1 {code} So\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
        })
    };
    let (failing, well) = (slowly(503).await, slowly(200).await);
    let rules = "service: web\npools: {first: id == web-0, other: id == web-1}\ntimeout: {first_byte: 4s}\n\
                 rules: [{name: all, to: [first, other]}]\n";
    let proxy = Setup::to(&[failing.address, well.address]).rules(rules).start().await;
    assert_eq!(proxy.ask(&pieces().0).await.status, 200);
}

#[tokio::test]
async fn the_whole_time_bounds_an_answer_that_keeps_flowing() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        // Never silent: every poll finds something.
        let some = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        while stream.write_all(some.as_bytes()).await.is_ok() {}
    })
    .await;
    let rules = format!("{ONE_POOL}timeout: {{total: 500ms}}\n");
    let proxy = Setup { logs: true, ..Setup::to(&[instance.address]) }.rules(&rules).start().await;
    let asked = Instant::now();
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    // The client is the slower side, so there is always something to pass on, and never a wait for the instance.
    let mut some = vec![0; 0x10000];
    while matches!(soon("a piece, or the end", client.stream.read(&mut some)).await, Ok(1..)) {
        assert!(asked.elapsed() < Duration::from_secs(8), "it flows on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(proxy.logged(1).await[0]["detail"], "upstream_timeout");
}

#[tokio::test]
async fn copies_are_load_while_they_last_and_never_among_what_an_instance_is_judged_by() {
    let live = Scripted::echo().await;
    let slow = Scripted::raw(|mut stream, _| async move {
        let mut read = Vec::new();
        while read_request(&mut stream, &mut read, 0, 0).await.is_some() {
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            let Act::Write(answer) = ok("seen") else { return };
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    })
    .await;
    let rules = "service: web\npools: {live: id == web-0, next: id == web-1}\n\
                 rules:\n  - {name: all, to: live, mirror: {to: next, share: 100%}}\n";
    let proxy = Setup::to(&[live.address, slow.address]).rules(rules).start().await;
    for _ in 0..2 {
        assert_eq!(proxy.get("/").await.status, 200);
        assert_eq!(proxy.live(1).in_flight(), 1, "it is load");
        proxy.rests().await;
    }
    assert_eq!((proxy.live(0).ended(), proxy.live(1).ended()), (2, 0));
    assert_eq!(slow.connections(), 1, "a connection is as fresh as its last answer, however long that took");
}
