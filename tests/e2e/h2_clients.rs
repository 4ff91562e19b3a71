//! HTTP/2 from clients, to instances of HTTP/1.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request};
use tokio::io::AsyncWriteExt;

use crate::harness::h2::{H2Client, get, post, write};
use crate::harness::{Act, Proxy, Scripted, Setup, ok, soon};

#[tokio::test]
async fn a_client_that_starts_with_the_preface_is_spoken_to_in_http2() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let reply = client.get("/a?b=1").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "GET /a?b=1 HTTP/1.1 "));
    assert!(reply.field("date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(reply.field("content-length"), Some("20"));
    let seen = &instance.requests()[0];
    assert_eq!(seen.field("host").as_deref(), Some("shop"));
    let reply = client.send(post("/up", "body")).await.unwrap();
    assert_eq!(reply.text(), "POST /up HTTP/1.1 body");
    assert_eq!(instance.connections(), 1, "the instance's connection is kept");
    assert_eq!(proxy.get("/x").await.status, 200, "HTTP/1 is spoken beside it");
}

#[tokio::test]
async fn a_preface_in_pieces_is_still_one() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = proxy.client().await;
    for piece in [&b"PRI * HTTP"[..], b"/2.0\r\n\r\n", b"SM\r\n\r", b"\n\0\0\0\x04\0\0\0\0\0"] {
        client.stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let head = client.raw(9).await;
    assert_eq!(head[3], 4, "a SETTINGS frame comes: {head:?}");
}

#[tokio::test]
async fn a_listener_can_refuse_http2_in_the_clear() {
    let instance = Scripted::echo().await;
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listen = vec![pointsman::server::Listen::plain(any)];
    listen[0].entrance.refuse_h2c = true;
    let proxy = Setup::to(&[instance.address]).listen(listen).start().await;
    let mut client = proxy.client().await;
    client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let reply = client.reply().await;
    assert!([0, 400, 505].contains(&reply.status), "{}", reply.status);
    assert_eq!(proxy.metric("pointsman_h2_streams_total").map(|line| line.ends_with(" 0")), Some(true));
    assert_eq!(proxy.get("/").await.status, 200, "HTTP/1 is spoken");
}

#[tokio::test]
async fn requests_of_one_connection_do_not_wait_for_each_other() {
    let instance = Scripted::http(|seen| if seen.line().contains("/hang") { Act::Hang } else { ok("quick") }).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let (_hanging, _) = client.start(get("/hang").map(|_| ()), true).await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "quick");
    }
    assert!(proxy.metric("pointsman_h2_streams_total").unwrap().ends_with(" 4"));
}

#[tokio::test]
async fn authority_and_host_must_agree_and_cookies_are_one_field() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let with = |name: &str, value: &str| {
        let mut request = get("/");
        request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        request
    };
    assert_eq!(client.send(with("host", "other")).await.unwrap().status, 400);
    assert_eq!(client.send(with("host", "shop")).await.unwrap().status, 200);
    let mut request = get("/");
    for crumb in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    client.send(request).await.unwrap();
    assert_eq!(instance.requests().last().unwrap().field("cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(client.send(with("te", "trailers")).await.unwrap().status, 200);
    assert_eq!(instance.requests().last().unwrap().field("te").as_deref(), Some("trailers"));
}

#[tokio::test]
async fn connect_and_trace_are_refused_and_the_connection_goes_on() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let connect = Request::connect("shop:80").body(Vec::new()).unwrap();
    assert_eq!(client.send(connect).await.unwrap().status, 405);
    let trace = Request::trace("http://shop/").body(Vec::new()).unwrap();
    assert_eq!(client.send(trace).await.unwrap().status, 405);
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(instance.requests().len(), 1);
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let instance = Scripted::http(|_| Act::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_vec())).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let head = Request::head("http://shop/").body(Vec::new()).unwrap();
    let reply = client.send(head).await.unwrap();
    assert_eq!((reply.status, reply.field("content-length"), reply.body.len()), (200, Some("7"), 0));
}

#[tokio::test]
async fn fields_of_one_connection_do_not_reach_the_client() {
    let answer =
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-own\r\nkeep-alive: timeout=5\r\nx-own: 1\r\nx-kept: 2\r\n\
                   transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let instance = Scripted::http(|_| Act::Write(answer.to_vec())).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.field("x-kept")), (200, "ok", Some("2")));
    for gone in ["connection", "keep-alive", "x-own", "transfer-encoding"] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_resets_its_stream_only() {
    let instance = Scripted::http(|seen| {
        if seen.line().contains("/cut") {
            Act::WriteThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart".to_vec())
        } else {
            ok("whole")
        }
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let error = client.send(get("/cut")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}");
    assert_eq!(client.get("/").await.text(), "whole");
}

#[tokio::test]
async fn a_stream_that_is_taken_back_ends_the_exchange_with_the_instance() {
    let (closed, mut told) = tokio::sync::mpsc::channel(1);
    let instance = Scripted::raw(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            crate::harness::read_request(&mut stream, &mut Vec::new(), 0, 0).await.unwrap();
            let end = tokio::io::AsyncReadExt::read(&mut stream, &mut [0u8; 16]).await;
            closed.send(matches!(end, Ok(0) | Err(_))).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let (answer, mut stream) = client.start(get("/").map(|_| ()), true).await;
    tokio::time::timeout(Duration::from_millis(100), answer).await.unwrap_err();
    stream.send_reset(Reason::CANCEL);
    assert!(soon("the instance's end", told.recv()).await.unwrap());
}

#[tokio::test]
async fn slow_instances_and_slow_clients_meet_their_limits() {
    let instance = Scripted::http(|_| Act::Hang).await;
    let rules = format!("{}timeout: {{first_byte: 200ms}}\nretry: {{attempts: 1}}\n", crate::harness::ONE_POOL);
    let setup = Setup::to(&[instance.address]).rules(&rules).settings(|settings| settings.patience.idle = 200);
    let proxy = setup.start().await;
    let client = H2Client::connect(proxy.address).await;
    assert_eq!(client.get("/").await.status, 504);
    let (answer, mut stream) = client.start(post("/", "").map(|_| ()), false).await;
    stream.send_data(Bytes::from_static(b"some"), false).unwrap();
    assert_eq!(soon("the answer", answer).await.unwrap().status(), 408);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_stream_only_and_loses_it() {
    let large = vec![b'x'; 1 << 20];
    let instance = Scripted::http(move |seen| {
        if seen.line().contains("/large") { ok(&String::from_utf8(large.clone()).unwrap()) } else { ok("small") }
    })
    .await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.write_idle = 300).start().await;
    let builder = h2::client::Builder::new().initial_window_size(1_000).initial_connection_window_size(1 << 20).clone();
    let client = H2Client::with(proxy.address, &builder).await;
    let (answer, _stream) = client.start(get("/large").map(|_| ()), true).await;
    let mut unread = soon("the head", answer).await.unwrap().into_body();
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "small");
    }
    let mut held = 0;
    let error = loop {
        match soon("the end", unread.data()).await.unwrap() {
            Ok(data) => held += data.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((error.reason(), held), (Some(Reason::CANCEL), 1_000));
    assert!(proxy.metric("pointsman_write_cuts_total{of=\"stream\"} 1").is_some());
    assert_eq!(client.get("/").await.text(), "small", "the connection goes on");
}

#[tokio::test]
async fn a_request_with_trailers_is_whole_to_an_instance_of_http1() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let (answer, mut stream) = client.start(post("/", "").map(|_| ()), false).await;
    write(&mut stream, b"text", false).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    assert_eq!(soon("the answer", answer).await.unwrap().status(), 200);
    assert_eq!(instance.requests()[0].body, b"text");
}

#[tokio::test]
async fn an_idle_connection_is_told_to_leave() {
    let instance = Scripted::echo().await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.keep_alive = 300).start().await;
    let client = H2Client::connect(proxy.address).await;
    assert_eq!(client.get("/").await.status, 200);
    drop(client.sender);
    assert!(soon("the end", client.connection).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_refuses_new_ones() {
    let (go, _) = tokio::sync::broadcast::channel::<()>(1);
    let release = go.clone();
    let instance = Scripted::raw(move |mut stream, _| {
        let mut go = go.subscribe();
        async move {
            crate::harness::read_request(&mut stream, &mut Vec::new(), 0, 0).await.unwrap();
            go.recv().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let (answer, _) = client.start(get("/").map(|_| ()), true).await;
    while instance.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(8)));
    // The client has heard GOAWAY when it gets no more streams.
    let mut sender = client.sender.clone();
    soon("GOAWAY", async {
        while std::future::poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    release.send(()).unwrap();
    let reply = crate::harness::h2::collect(soon("the answer", answer).await.unwrap()).await.unwrap();
    assert_eq!(reply.text(), "late");
    assert_eq!(soon("the drain", draining).await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_client_that_takes_back_what_it_asks_is_given_up() {
    let instance = Scripted::http(|_| Act::Hang).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let mut pairs = 0;
    while pairs < 20_000 {
        let Ok(mut sender) = client.sender.clone().ready().await else { break };
        let Ok((_, mut stream)) = sender.send_request(get("/").map(|_| ()), true) else { break };
        stream.send_reset(Reason::CANCEL);
        pairs += 1;
        tokio::task::yield_now().await;
    }
    let end = soon("the end", client.connection).await.unwrap();
    assert_eq!(end.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(pairs < 20_000);
    assert!(instance.connections() <= 52, "{} reached the instance", instance.connections());
}
