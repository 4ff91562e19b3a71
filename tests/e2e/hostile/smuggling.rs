//! Request smuggling over HTTP/1.1: whatever a client sends, the instance reads no request that the proxy did not decide
//! on.

use tokio::io::AsyncReadExt;

use super::recorder::Recorder;
use crate::harness::{Act, Proxy, Scripted, Setup, soon};

const CHUNKED: &str = "transfer-encoding: chunked\r\n";
const LAST: &str = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// The published forms, and what hides a coding or a length from one of two readers.
fn attacks() -> Vec<(&'static str, String)> {
    let hidden = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = |fields: &str, body: &str| format!("POST /up HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}");
    let te = |fields: &str| {
        post(&format!("content-length: {}\r\n{fields}", hidden.len() + 5), &format!("0\r\n\r\n{hidden}"))
    };
    let length = hidden.len();
    let mut all = vec![
        ("CL.TE", post(&format!("content-length: 6\r\n{CHUNKED}"), &format!("0\r\n\r\n{hidden}"))),
        ("TE.CL", post(&format!("{CHUNKED}content-length: 4\r\n"), &format!("0\r\n\r\n{hidden}"))),
        ("CL.0", post(&format!("content-length: {length}\r\n"), hidden)),
        ("CL.0 in a GET", format!("GET /up HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{hidden}")),
        (
            "0.CL",
            format!("GET /up HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "an expectation nobody knows",
            format!(
                "POST /up HTTP/1.1\r\nhost: a\r\nexpect: y 100-continue\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        ("TE.0", format!("OPTIONS /up HTTP/1.1\r\nhost: a\r\n{CHUNKED}\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n")),
        ("CL.CL", post(&format!("content-length: 0\r\ncontent-length: {length}\r\n"), hidden)),
        ("the same length twice", post("content-length: 2\r\ncontent-length: 2\r\n", "ab")),
        ("a length in hexadecimal", post("content-length: 0x10\r\n", hidden)),
        (
            "h2c upgrade",
            "GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: \
             AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                .into(),
        ),
        ("a length that Connection takes away", {
            post(&format!("connection: content-length\r\ncontent-length: {length}\r\n"), hidden)
        }),
        ("a coding that Connection takes away", {
            post(
                &format!("connection: transfer-encoding\r\n{CHUNKED}"),
                &format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
            )
        }),
        ("a chunk extension with a line feed", post(CHUNKED, &format!("2;\nxx\r\nab\r\n0\r\n\r\n{hidden}"))),
        ("a chunk size that a line feed ends", post(CHUNKED, &format!("2\nab\r\n0\r\n\r\n{hidden}"))),
        ("a last chunk that a line feed ends", post(CHUNKED, &format!("0\n\r\n{hidden}"))),
        ("a chunk size with spaces", post(CHUNKED, "2   \r\nab\r\n0\r\n\r\n")),
        ("a chunk size in hexadecimal", post(CHUNKED, &format!("0x2\r\nab\r\n0\r\n\r\n{hidden}"))),
        ("an endless chunk extension", post(CHUNKED, &format!("2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(40_000)))),
        ("trailers that frame", {
            post(&format!("{CHUNKED}trailer: host, content-length\r\n"), "0\r\nhost: b\r\ncontent-length: 9\r\n\r\n")
        }),
        ("a head of line feeds", "GET /up HTTP/1.1\nhost: a\n\n".into()),
        ("empty lines in front", format!("\r\n\r\n\r\n{}", post("", ""))),
        ("a space in front of a field", post(" x: y\r\n", "")),
        ("a request line with a tab", "GET\t/up\tHTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("a request line with two spaces", "GET  /up HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("a target with a fragment", "GET /up#/../smuggled HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("an absolute target without a path", "GET http://a?x=/smuggled HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("HTTP/1.0 that stays", "GET /up HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n".into()),
    ];
    for (what, fields) in [
        ("TE.TE: another coding beside", "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n"),
        ("TE.TE: a letter more", "transfer-encoding: xchunked\r\n"),
        ("TE.TE: a space before the colon", "transfer-encoding : chunked\r\n"),
        ("TE.TE: a folded value", "transfer-encoding:\r\n chunked\r\n"),
        ("TE.TE: a tab", "transfer-encoding:\tchunked\r\n"),
        ("TE.TE: a vertical tab", "transfer-encoding:\x0bchunked\r\n"),
        ("TE.TE: a form feed behind", "transfer-encoding: chunked\x0c\r\n"),
        ("TE.TE: quoted", "transfer-encoding: \"chunked\"\r\n"),
        ("TE.TE: a list", "transfer-encoding: chunked, identity\r\n"),
        ("TE.TE: an empty member", "transfer-encoding: , chunked\r\n"),
        ("TE.TE: a parameter", "transfer-encoding: chunked;a=b\r\n"),
        ("TE.TE: another case", "Transfer-Encoding: CHUNKED\r\n"),
        ("TE.TE: an underscore", "transfer_encoding: chunked\r\n"),
        ("TE.TE: hidden in a value", "x: y\ntransfer-encoding: chunked\r\n"),
        ("TE.TE: hidden behind a CR", "x: y\rtransfer-encoding: chunked\r\n"),
        ("TE.TE: hidden behind a NUL", "transfer-encoding: chunked\0\r\n"),
        ("TE.TE: empty", "transfer-encoding:\r\n"),
    ] {
        all.push((what, te(fields)));
    }
    all
}

#[tokio::test]
async fn no_request_is_smuggled_over_http1() {
    for (what, bytes) in attacks() {
        let instance = Recorder::start().await;
        let proxy = Setup::to(&[instance.address])
            .settings(|settings| settings.patience.idle = 100)
            .limits(|limits| (limits.head, limits.keep_alive) = (100, 100))
            .start()
            .await;
        let mut client = proxy.client().await;
        client.send(format!("{bytes}{LAST}")).await;
        let mut answers = Vec::new();
        let _ = soon(what, client.stream.read_to_end(&mut answers)).await;
        let answers = String::from_utf8_lossy(&answers).matches(" 200 OK\r\n").count();
        let read = instance.messages(what);
        assert!(read.len() <= answers, "{what}: {} requests for {answers} answers: {read:?}", read.len());
        for message in &read {
            assert!(!message.path().contains("smuggled"), "{what}: {message:?}");
            assert!(["/up", "/last", "/"].contains(&message.path()), "{what}: {message:?}");
        }
        assert!(proxy.transitions.all().is_empty(), "{what}: held against the instance");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    for (what, method, first) in [
        ("two answers to one request", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("a body behind HEAD", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n"),
        ("a body behind 304", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("more than the length", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let instance = Scripted::http(move |seen| {
            if seen.line().contains("/second") {
                return crate::harness::ok("second");
            }
            let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
            Act::Write(format!("{first}{poison}").into_bytes())
        })
        .await;
        let proxy = Proxy::to(&[instance.address]).await;
        let mut client = proxy.client().await;
        for turn in 0..20 {
            client.send(format!("{method} /first HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            let reply = client.reply_to(method).await;
            assert!(!reply.text().contains("poison"), "{what}, {turn}: {reply:?}");
            client.send("GET /second HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "second"), "{what}, {turn}");
        }
    }
}

#[tokio::test]
async fn a_connection_with_an_unread_upload_is_not_used_again() {
    // The instance answers at the head. What it has not read of the body must not become its next request.
    let instance = Scripted::raw(|mut stream, number| async move {
        let mut read = Vec::new();
        let mut heads = 0;
        while matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&read).into_owned();
            assert!(!text.contains("GET /next") || number > 0 || !text.contains("POST"), "{text}");
            if text.matches("\r\n\r\n").count() > heads {
                heads += 1;
                use tokio::io::AsyncWriteExt;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome").await;
    assert_eq!(client.reply().await.text(), "ok");
    for _ in 0..3 {
        let mut other = proxy.client().await;
        other.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(other.reply().await.text(), "ok");
    }
    assert_eq!(instance.connections(), 2, "the first connection was given up");
}
