//! Instances that answer what no server should.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, frame, literal};
use crate::harness::{Act, ONE_POOL, Proxy, Scripted, Setup, h2, instance, ok, read_request, soon};

/// Reads a request, then writes these bytes for as long as somebody reads them, after the first ones.
async fn endless(first: &'static [u8], more: &'static [u8]) -> Scripted {
    Scripted::raw(move |mut stream, _| async move {
        if read_request(&mut stream, &mut Vec::new(), 0, 0).await.is_none() {
            return;
        }
        let _ = stream.write_all(first).await;
        let some = more.repeat(100);
        while stream.write_all(&some).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn an_endless_head_of_any_kind_is_given_up() {
    for (what, first, more, statuses) in [
        ("1xx storm", &b""[..], &b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"[..], [502, 504]),
        ("continues for ever", b"", b"HTTP/1.1 100 Continue\r\n\r\n", [502, 504]),
        ("fields for ever", b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", [502, 502]),
        ("one field for ever", b"HTTP/1.1 200 OK\r\nx: ", b"yyyyyyyyyyyyyyyy", [502, 502]),
        ("a reason for ever", b"HTTP/1.1 200 ", b"OKOKOKOKOKOKOK", [502, 502]),
        ("empty lines for ever", b"", b"\r\n", [502, 504]),
    ] {
        let instance = endless(first, more).await;
        let rules = format!("{ONE_POOL}timeout: {{first_byte: 3s}}\nretry: {{attempts: 1}}\n");
        let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
        let reply = proxy.get("/").await;
        assert!(statuses.contains(&reply.status), "{what}: {}", reply.head);
    }
}

#[tokio::test]
async fn an_answers_head_has_a_limit_that_is_a_setting() {
    let long = |seen: Option<&str>| "x".repeat(seen.unwrap().parse().unwrap());
    let http1 = Scripted::http(move |seen| {
        let long = long(seen.field("x-length").as_deref());
        Act::Write(format!("HTTP/1.1 200 OK\r\nx-long: {long}\r\ncontent-length: 2\r\n\r\nok").into_bytes())
    })
    .await;
    let (h2, _) = h2::instance(move |request, mut respond, _| async move {
        let long = long(request.headers().get("x-length").map(|length| length.to_str().unwrap()));
        let _ = respond.send_response(http::Response::builder().header("x-long", long).body(()).unwrap(), true);
    })
    .await;
    let protocol = |name| format!("{ONE_POOL}retry: {{attempts: 1}}\nupstream: {{protocol: {name}}}\n");
    for (instance, rules) in [(&http1, protocol("http1")), (&h2, protocol("h2"))] {
        for (limit, length, status) in [(64 << 10, 60 << 10, 200), (64 << 10, 70 << 10, 502), (8 << 10, 9 << 10, 502)] {
            let setup = Setup::to(&[instance.address]).rules(&rules).settings(|settings| settings.answer_head = limit);
            let proxy = setup.start().await;
            let reply = proxy.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-length: {length}\r\n\r\n")).await;
            assert_eq!(reply.status, status, "{rules}: {limit} {length}");
        }
    }
}

#[tokio::test]
async fn an_endless_framing_of_a_body_is_cut() {
    for (what, first, more) in [
        ("an extension for ever", &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;"[..], &b"xxxxxxxx"[..]),
        ("trailers for ever", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
        ("a chunk size for ever", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"00000000"),
    ] {
        let instance = endless(first, more).await;
        let rules = format!("{ONE_POOL}timeout: {{idle: 500ms}}\nretry: {{attempts: 1}}\n");
        let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
        let reply = proxy.get("/").await;
        assert!((reply.status, reply.whole) == (200, false) || reply.status == 502, "{what}: {reply:?}");
    }
}

#[tokio::test]
async fn a_head_that_drips_is_a_timeout() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let rules = format!("{ONE_POOL}timeout: {{first_byte: 300ms}}\nretry: {{attempts: 1}}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    assert_eq!(proxy.get("/").await.status, 504);
}

#[tokio::test]
async fn an_answer_cannot_be_split() {
    // What an instance puts into a field stays in that field; what could end one is refused.
    for (what, field) in [
        ("a bare LF", "x: a\nset-cookie: b=1"),
        ("a bare CR", "x: a\rset-cookie: b=1"),
        ("a NUL", "x: a\0b"),
        ("a folded one", "x: a\r\n set-cookie: b=1"),
        ("a space before the colon", "set-cookie : b=1"),
    ] {
        let instance = Scripted::http(move |_| {
            Act::Write(format!("HTTP/1.1 200 OK\r\n{field}\r\ncontent-length: 0\r\n\r\n").into())
        })
        .await;
        let proxy = Proxy::to(&[instance.address]).await;
        let reply = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        let folded = reply.field("x").is_some_and(|value| value.contains("set-cookie"));
        // A bare LF ends a line (RFC 9112, 2.2): then it is a field of its own, to the client as to us.
        let own = what == "a bare LF" && reply.field("x").as_deref() == Some("a");
        assert!(reply.status == 502 || folded || own, "{what}: {}", reply.head);
        assert!(!reply.head.contains('\0') && !reply.head.replace("\r\n", "").contains(['\r', '\n']), "{what}");
    }
    // Nor can a client put anything into an answer through a rule that speaks of its request.
    let instance = Scripted::http(|_| ok("x")).await;
    let edits = "headers: {response: {set: {x-asked: \"{query.q}\"}}}\n";
    let proxy = Setup::to(&[instance.address]).rules(&format!("{ONE_POOL}{edits}")).start().await;
    let reply = proxy.get("/?q=a%0d%0aset-cookie:%20b=1").await;
    assert_eq!((reply.status, reply.field("set-cookie")), (200, None), "{}", reply.head);
}

/// An instance labelled h2c that writes these bytes behind its settings when the first request came.
async fn h2c(bytes: Vec<u8>) -> (Scripted, Proxy) {
    let scripted = Scripted::raw(move |mut stream: TcpStream, _| {
        let bytes = bytes.clone();
        async move {
            let _ = stream.write_all(&frame(4, 0, 0, &[])).await;
            let mut read = Vec::new();
            // Pings are answered until the request's head is there.
            let mut at = PREFACE;
            loop {
                let Some((kind, payload, next)) = frame_at(&read, at) else {
                    if !matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
                        return;
                    }
                    continue;
                };
                match kind {
                    HEADERS => break,
                    PING => drop(stream.write_all(&frame(PING, 1, 0, payload)).await),
                    _ => {}
                }
                at = next;
            }
            let _ = stream.write_all(&bytes).await;
            while matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
                read.clear();
            }
        }
    })
    .await;
    let instances = vec![instance("h2c", scripted.address, &[("proto", "h2c")])];
    let rules = format!("{ONE_POOL}timeout: {{first_byte: 1s}}\nretry: {{attempts: 1}}\n");
    let proxy = Setup { instances, ..Setup::default() }.rules(&rules).start().await;
    (scripted, proxy)
}

/// The bytes of a client's preface.
const PREFACE: usize = 24;

/// Kind and payload of the frame there, and where the next one begins.
fn frame_at(read: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let head = read.get(at..at + 9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let payload = read.get(at + 9..at + 9 + length)?;
    Some((head[3], payload, at + 9 + length))
}

#[tokio::test]
async fn an_instance_of_http2_that_breaks_the_protocol_fails_its_request_only() {
    let head = literal(":status", "200");
    let large = [head.clone(), literal("x", "y".repeat(15_000))].concat();
    let bomb: Vec<u8> = [
        frame(HEADERS, 0, 1, &large),
        (0..40).flat_map(|_| frame(CONTINUATION, 0, 1, &literal("x", "y".repeat(16_000)))).collect(),
        frame(CONTINUATION, END_HEADERS, 1, &[]),
    ]
    .concat();
    let too_long = [vec![0, 0x80, 0, 0, 0, 0, 0, 0, 1], vec![0; 0x8000]].concat();
    for (what, bytes) in [
        ("a header bomb", bomb),
        ("a frame longer than agreed", too_long),
        ("a promise", frame(5, END_HEADERS, 1, &[[0, 0, 0, 2].to_vec(), head.clone()].concat())),
        ("CRLF in a value", frame(HEADERS, 5, 1, &[head.clone(), literal("x", "a\r\nset-cookie: b")].concat())),
        ("no status", frame(HEADERS, 5, 1, &literal("x", "y"))),
        ("a status that is none", frame(HEADERS, 5, 1, &literal(":status", "2000"))),
        ("two statuses", frame(HEADERS, 5, 1, &[head.clone(), head.clone()].concat())),
        ("a head on a stream of its own", frame(HEADERS, END_HEADERS | END_STREAM, 2, &head)),
        ("a ping on a stream", frame(6, 0, 1, &[0; 8])),
        ("no HTTP/2 at all", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("1xx storm", frame(HEADERS, END_HEADERS, 1, &literal(":status", "103")).repeat(20_000)),
        ("GOAWAY for everything", frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2])),
    ] {
        // Nothing but the storm is waited out.
        let storm = what == "1xx storm";
        let (_instance, proxy) = h2c(bytes).await;
        let reply = soon(what, proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(reply.status, if storm { 504 } else { 502 }, "{what}: {}", reply.head);
        assert_eq!(reply.field("set-cookie"), None, "{what}");
    }
}

#[tokio::test]
async fn a_body_over_http2_of_another_length_than_declared_reaches_the_client_as_a_cut_one() {
    for (what, length, body) in [("shorter", "10", "four"), ("longer", "2", "more than two")] {
        let head = [literal(":status", "200"), literal("content-length", length)].concat();
        let bytes = [frame(HEADERS, END_HEADERS, 1, &head), frame(0, END_STREAM, 1, body.as_bytes())].concat();
        let (_instance, proxy) = h2c(bytes).await;
        let reply = proxy.get("/").await;
        assert!((reply.status, reply.whole) == (200, false) || reply.status == 502, "{what}: {reply:?}");
        assert!(!reply.text().contains("than two"), "{what}: {reply:?}");
    }
}
