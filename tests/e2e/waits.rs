//! Who is waited for when a time runs out: the one who is bears it, and nobody else.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::h2::{H2Client, instance as h2_instance, read, write};
use crate::harness::{ONE_POOL, Scripted, Setup, instance, read_request, soon};

/// One failure is enough to be ejected.
fn strict(policies: &str) -> String {
    format!("{ONE_POOL}eject: {{consecutive_5xx: 1}}\n{policies}")
}

const HALF: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nsome ";

#[tokio::test]
async fn a_client_that_is_slow_until_the_whole_is_over_is_no_evidence() {
    let instance = Scripted::echo().await;
    let rules = strict("timeout: {total: 300ms}\nretry: {attempts: 3, on: [timeout]}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let reply = proxy.ask(HALF).await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (408, Some("client_timeout")));
    assert!(proxy.transitions.all().is_empty());
    assert_eq!(instance.connections(), 1, "there was nothing to be tried again");
}

#[tokio::test]
async fn a_try_has_its_time_for_itself_while_its_client_pauses() {
    let instance = Scripted::echo().await;
    let rules = strict("retry: {attempts: 2, on: [timeout], per_try: 1s}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send(HALF.replace("POST", "PUT")).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    client.send("more.").await;
    assert_eq!(client.reply().await.text(), "PUT / HTTP/1.1 some more.");
    assert_eq!((instance.requests().len(), proxy.transitions.all().len()), (1, 0));
}

#[tokio::test]
async fn an_answer_that_waits_for_an_upload_is_not_idle_while_the_upload_moves() {
    let instance = Scripted::raw(|mut stream, _| async move {
        let mut head = [0; 512];
        let mut read = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n").await.unwrap();
        while !head[..read].ends_with(b"END") {
            read += stream.read(&mut head[read..]).await.unwrap();
        }
        stream.write_all(b"done").await.unwrap();
    })
    .await;
    let proxy = Setup::to(&[instance.address]).rules(&strict("timeout: {idle: 1s}\n")).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 33\r\n\r\n").await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.send("x").await;
    }
    client.send("END").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "done"));
    assert!(proxy.transitions.all().is_empty());
}

#[tokio::test]
async fn an_answer_that_moves_is_not_idle_though_nobody_else_says_anything() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n").await.unwrap();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            stream.write_all(b"x").await.unwrap();
        }
    })
    .await;
    let proxy = Setup::to(&[instance.address]).rules(&strict("timeout: {idle: 900ms}\n")).start().await;
    let reply = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!(reply.text().len(), 50);
}

#[tokio::test]
async fn events_that_nobody_has_for_a_while_end_without_evidence() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}4\r\n: \n\n\r\n").as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let rules = strict("timeout: {stream_idle: 300ms}\n");
    let proxy = Setup { logs: true, ..Setup::to(&[instance.address]) }.rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    soon("the end", client.stream.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(proxy.logged(1).await[0]["detail"], "stream_idle");
    assert!(proxy.transitions.all().is_empty());
}

#[tokio::test]
async fn a_call_in_which_one_side_talks_is_not_idle() {
    let (talking, _heads) = h2_instance(|_request, mut respond, _| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut sink = respond.send_response(head, false).unwrap();
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            if sink.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, b'x']), false).is_err() {
                return;
            }
        }
        let _ = sink.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]));
    })
    .await;
    let setup = Setup { instances: vec![instance("web-0", talking.address, &[("proto", "grpc")])], ..Setup::default() };
    let proxy = setup.rules(&strict("timeout: {stream_idle: 1s}\n")).start().await;
    let client = H2Client::connect(proxy.address).await;
    let call =
        Request::post("http://shop/a.B/Watch").header("te", "trailers").header("content-type", "application/grpc");
    let (answer, mut asking) = client.start(call.body(()).unwrap(), false).await;
    write(&mut asking, &[0, 0, 0, 0, 1, b'x'], false).await.unwrap();
    let mut answer = soon("the answer", answer).await.unwrap();
    let (messages, trailers) = soon("the end", read(answer.body_mut())).await.unwrap();
    assert_eq!(messages.len(), 40 * 6);
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    drop(asking);
}

#[tokio::test]
async fn a_field_that_says_grpc_does_not_lift_the_limits_of_a_body() {
    let instance = Scripted::echo().await;
    let setup = Setup { logs: true, ..Setup::to(&[instance.address]) };
    let proxy = setup.settings(|s| s.patience.idle = 300).start().await;
    let mut client = proxy.client().await;
    client.send(HALF.replace("content-length", "content-type: application/grpc\r\ncontent-length")).await;
    assert_eq!(proxy.logged(1).await[0]["detail"], "client_timeout");
}

#[tokio::test]
async fn a_client_that_does_not_read_until_the_whole_is_over_is_no_evidence() {
    let instance = Scripted::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0, 0).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 0x10000]).await.is_ok() {}
    })
    .await;
    let rules = strict("timeout: {total: 1s}\n");
    let proxy = Setup { logs: true, ..Setup::to(&[instance.address]) }.rules(&rules).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // All buffers are full before the time is over.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let _ = soon("the end", client.stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(proxy.logged(1).await[0]["detail"], "upstream_timeout");
    assert!(proxy.transitions.all().is_empty());
}
