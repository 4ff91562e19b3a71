//! Requests and answers that no proxy may pass on.

use std::time::Duration;

use crate::harness::h2::H2Client;
use crate::harness::{Act, Proxy, Scripted, Setup, soon};

/// What is sent, and the statuses that are right for it.
const MALFORMED: &[(&str, &str, &[u16])] = &[
    (
        "two different lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        &[400],
    ),
    ("two lengths in one field", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd", &[400]),
    ("a length with a sign", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", &[400]),
    ("a length that is none", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3x\r\n\r\nabc", &[400]),
    ("a space before the colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n", &[400]),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n", &[400]),
    ("a NUL in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", &[400]),
    ("a NUL in the target", "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("a folded field", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", &[400]),
    ("no name", "GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n", &[400]),
    ("two Hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", &[400]),
    ("the same Host twice", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", &[400]),
    ("no Host", "GET / HTTP/1.1\r\nx: a\r\n\r\n", &[400]),
    ("an empty Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n", &[400]),
    ("a Host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", &[400]),
    ("a Host with a user", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", &[400]),
    ("a target for another host", "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("the asterisk", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("an encoded slash", "GET /a%2f..%2fb HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", &[405]),
    ("TRACE", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", &[405]),
    ("another coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", &[400, 501]),
    ("two codings", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[501]),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "chunked in two fields",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[501],
    ),
    (
        "chunked hidden by a tab",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    ("a coding in HTTP/1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("a wrong version", "GET / HTTP/2.0\r\nhost: a\r\n\r\n", &[400]),
    ("no version", "GET /\r\nhost: a\r\n\r\n", &[400]),
    ("no request line", "\x16\x03\x01\x02\x00\x01\r\n\r\n", &[400]),
    (
        "a chunk size that is none",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a chunk size that overflows",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a chunk longer than it says",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a chunk size with a sign",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a chunk without its end",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
        &[400],
    ),
];

#[tokio::test]
async fn malformed_and_ambiguous_requests_are_refused_and_the_connection_closed() {
    for (what, request, expected) in MALFORMED {
        let instance = Scripted::echo().await;
        let proxy = Proxy::to(&[instance.address]).await;
        let mut client = proxy.client().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert!(expected.contains(&reply.status), "{what}: {} {}", reply.status, reply.head);
        client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.is_closed().await, "{what}: the connection goes on");
        // hyper closes before it says why.
        soon(&format!("{what}: the count"), async {
            let families = ["pointsman_refusals_total{", "pointsman_errors_total{"];
            while !families.iter().filter_map(|name| proxy.metric(name)).any(|line| line.ends_with(" 1")) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert!(instance.requests().is_empty(), "{what}: passed on {:?}", instance.requests());
        assert!(proxy.transitions.all().is_empty(), "{what}: held against the instance");
    }
}

#[tokio::test]
async fn a_length_beside_chunked_is_dropped_and_the_connection_closed_after_the_answer() {
    for fields in ["content-length: 3\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
    {
        let instance = Scripted::echo().await;
        let proxy = Proxy::to(&[instance.address]).await;
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let reply = client.reply().await;
        if reply.status == 200 {
            assert_eq!(reply.text(), "POST / HTTP/1.1 hello");
            assert_eq!(instance.requests()[0].field("content-length"), None);
        } else {
            assert_eq!(reply.status, 400);
        }
        assert!(client.is_closed().await);
        assert!(instance.requests().len() <= 1);
    }
}

#[tokio::test]
async fn malformed_answers_are_502_and_held_against_the_instance() {
    for (what, answer) in [
        ("no HTTP", "220 smtp.example ESMTP\r\n\r\n"),
        ("a bare CR", "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n"),
        ("a NUL", "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
        ("a length that is none", "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nabc"),
        ("another coding", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (
            "a coding twice",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("a change nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        ("a status that is none", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let instance = Scripted::http(move |_| Act::WriteThenClose(answer.into())).await;
        let eject = "eject: {consecutive_5xx: 1}\n";
        let proxy = Setup::to(&[instance.address]).rules(&format!("{}{eject}", crate::harness::ONE_POOL)).start().await;
        let reply = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(reply.status, 502, "{what}: {}", reply.head);
        assert_eq!(reply.field("x-pointsman-error").as_deref(), Some("upstream_malformed"), "{what}");
        assert_eq!(proxy.transitions.all().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn an_answers_head_has_a_limit() {
    let instance = Scripted::http(|_| {
        Act::Write(format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(70_000)).into_bytes())
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    assert_eq!(proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.status, 502);
}

#[tokio::test]
async fn heads_and_targets_have_limits() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let long = format!("/{}", "x".repeat(9_000));
    for (request, status) in [
        (get(&long, ""), 414),
        (get("/", &format!("x: {}\r\n", "y".repeat(70_000))), 431),
        (get("/", &"x: y\r\n".repeat(101)), 431),
        (get("/", &"x: y\r\n".repeat(90)), 200),
        (get("/", &format!("x: {}\r\n", "y".repeat(30_000))), 200),
    ] {
        assert_eq!(proxy.ask(&request).await.status, status, "{}", &request[..40]);
    }
    let client = H2Client::connect(proxy.address).await;
    for (fields, status) in [(101, 431), (100, 200)] {
        let mut request = http::Request::get("http://a/").body(Vec::new()).unwrap();
        for at in 0..fields {
            request.headers_mut().append(http::HeaderName::try_from(format!("x-{at}")).unwrap(), "y".parse().unwrap());
        }
        assert_eq!(client.send(request).await.unwrap().status, status, "{fields} fields over HTTP/2");
    }
}
