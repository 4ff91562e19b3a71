//! Framing and bodies, both ways.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::harness::{Act, Proxy, Scripted, ok, read_request, soon};

/// A megabyte that repeats nowhere, so that a swapped or lost piece shows.
fn megabyte() -> Vec<u8> {
    let mut state = 1u64;
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u8
    };
    (0..1 << 20).map(|_| step(&mut state)).collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[tokio::test]
async fn requests_share_a_connection_on_both_sides() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    for turn in 0..20 {
        client.send(format!("GET /{turn} HTTP/1.1\r\nhost: shop\r\n\r\n")).await;
        assert_eq!(client.reply().await.text(), format!("GET /{turn} HTTP/1.1 "));
    }
    assert!(instance.requests().iter().enumerate().all(|(at, seen)| (seen.connection, seen.turn) == (0, at)));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    let requests: String = (0..5).map(|turn| format!("GET /{turn} HTTP/1.1\r\nhost: shop\r\n\r\n")).collect();
    client.send(requests).await;
    for turn in 0..5 {
        assert_eq!(client.reply().await.text(), format!("GET /{turn} HTTP/1.1 "));
    }
}

#[tokio::test]
async fn a_megabyte_goes_up_and_down_unchanged_in_both_framings() {
    let body = megabyte();
    let whole = body.clone();
    let instance = Scripted::http(move |seen| {
        assert!(seen.body == whole, "the upload came unchanged");
        let mut answer = if seen.line().contains("sized") {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", seen.body.len()).into_bytes()
        } else {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
        };
        answer.extend(if seen.line().contains("sized") { seen.body.clone() } else { chunked(&seen.body, 7_001) });
        Act::Write(answer)
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    for (target, head, sent) in [
        ("sized", format!("content-length: {}", body.len()), body.clone()),
        ("coded", "transfer-encoding: chunked".to_owned(), chunked(&body, 10_007)),
        ("sized-again", format!("content-length: {}", body.len()), body.clone()),
    ] {
        client.send(format!("POST /{target} HTTP/1.1\r\nhost: shop\r\n{head}\r\n\r\n")).await;
        client.send(sent).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200);
        assert!(reply.whole && reply.body == body, "{target}: {} bytes", reply.body.len());
    }
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn trailers_are_passed_on_to_the_instance() {
    let instance = Scripted::raw(|mut stream, _| async move {
        let mut read = Vec::new();
        while !read.ends_with(b"x-sum: 1\r\n\r\n") {
            use tokio::io::AsyncReadExt;
            if !matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
                return;
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let head = "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    let reply = proxy.ask(&format!("{head}3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_body_is_asked_for_only_once_an_instance_takes_it() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("POST /x HTTP/1.1\r\nhost: shop\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.raw(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.reply().await.text(), "POST /x HTTP/1.1 hello");
    assert_eq!(instance.requests()[0].field("expect"), None);
}

#[tokio::test]
async fn a_refused_request_is_not_asked_for_its_body() {
    let proxy = Proxy::to(&[]).await;
    let head = "POST /x HTTP/1.1\r\nhost: shop\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    let reply = proxy.ask(head).await;
    assert_eq!((reply.status, reply.informational.len()), (503, 0));
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection() {
    let instance = Scripted::http(|seen| match seen.line().split(' ').nth(1) {
        Some("/204") => Act::Write(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        Some("/304") => Act::Write(b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 10\r\n\r\n".to_vec()),
        Some("/head") => Act::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n".to_vec()),
        _ => ok("last"),
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    for (method, target, status) in [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/head", 200)] {
        client.send(format!("{method} {target} HTTP/1.1\r\nhost: shop\r\n\r\n")).await;
        let reply = client.reply_to(method).await;
        assert_eq!(reply.status, status);
        if method == "HEAD" {
            assert_eq!(reply.field("content-length").as_deref(), Some("1234"));
        }
    }
    client.send("GET /last HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "last");
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let instance = Scripted::raw(|mut stream, _| async move {
        let mut some = [0u8; 1024];
        use tokio::io::AsyncReadExt;
        let _ = stream.read(&mut some).await;
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 10000000\r\n\r\nsome").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (413, "big"));
}

#[tokio::test]
async fn a_stream_without_length_reaches_the_client_piece_by_piece() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nfirst").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = stream.write_all(b"second").await;
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let reply = soon("the stream", client.reply()).await;
    assert_eq!((reply.text().as_str(), reply.whole), ("firstsecond", true));
}

#[tokio::test]
async fn informational_answers_of_an_instance_are_not_the_answer() {
    let storm = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(200);
    let instance = Scripted::http(move |_| {
        Act::Write(format!("{storm}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").into_bytes())
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    assert_eq!(proxy.get("/").await.text(), "ok");
}

#[tokio::test]
async fn an_old_client_is_served_and_its_connection_closed() {
    let instance = Scripted::http(|_| {
        Act::Write([&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..], &chunked(b"hello", 2)].concat())
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nhost: shop\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!(reply.text(), "hello");
    assert!(instance.requests()[0].line().ends_with("HTTP/1.1"));
}
