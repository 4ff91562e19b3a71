//! HTTP/2 to instances, from clients of HTTP/1 and of HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};

use crate::harness::h2::{H2Client, collect, echo, get, post, read, write};
use crate::harness::{Proxy, Setup, h2 as wire, instance, soon};
use crate::ports::unused;

/// One pool of instances that are labelled as speaking HTTP/2.
fn labelled(addresses: &[SocketAddr]) -> Setup {
    let instances = addresses.iter().enumerate();
    let instances = instances.map(|(at, addr)| instance(&format!("web-{at}"), *addr, &[("proto", "h2c")])).collect();
    Setup { instances, ..Setup::default() }
}

async fn to(addresses: &[SocketAddr]) -> Proxy {
    labelled(addresses).start().await
}

#[tokio::test]
async fn an_instance_labelled_h2c_is_spoken_to_in_http2_on_one_connection() {
    let (instance, heads) = echo().await;
    let proxy = to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client
        .send("POST /a?b HTTP/1.1\r\nhost: shop:81\r\ncontent-length: 4\r\nconnection: x-own\r\nx-own: 1\r\n\r\nbody")
        .await;
    assert_eq!(client.reply().await.text(), "POST /a body");
    let chunked = "POST /b HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmore\r\n0\r\n\r\n";
    client.send(chunked).await;
    assert_eq!(client.reply().await.text(), "POST /b more");
    client.send("GET /c HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "GET /c ");
    let over_h2 = H2Client::connect(proxy.address).await;
    assert_eq!(over_h2.get("/d").await.text(), "GET /d ");
    assert_eq!(instance.connections(), 1);
    let heads = heads.lock().unwrap();
    assert_eq!(heads[0].uri(), "http://shop:81/a?b");
    assert!(!heads[0].headers().contains_key("host") && !heads[0].headers().contains_key("x-own"));
    assert_eq!(heads[0].headers()["content-length"], "4");
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let (instance, _) = echo().await;
    let proxy = to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let (answer, mut stream) = client.start(post("/", "").map(|_| ()), false).await;
    write(&mut stream, b"text", false).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sent", "7".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let reply = collect(soon("the answer", answer).await.unwrap()).await.unwrap();
    assert_eq!(
        (reply.text().as_str(), reply.trailer("x-end"), reply.trailer("x-sent")),
        ("POST / text", Some("done"), Some("7"))
    );
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions() {
    let (instance, _) = echo().await;
    let proxy = to(&[instance.address]).await;
    let large: Vec<u8> = (0..3_000_000u32).map(|at| b'a' + (at % 23) as u8).collect();
    let client = H2Client::connect(proxy.address).await;
    let reply = client.send(post("/", large.clone())).await.unwrap();
    assert!(reply.body[7..] == large);
    let mut client = proxy.client().await;
    let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n", large.len());
    let (got, ()) = tokio::join!(
        async {
            let mut reader = crate::harness::Client::connect(proxy.address).await;
            reader.send([head.as_bytes(), &large].concat()).await;
            reader.reply().await
        },
        client.send(""),
    );
    assert!(got.body[7..] == large);
}

#[tokio::test]
async fn many_requests_share_connections_up_to_what_the_instance_allows() {
    let builder = h2::server::Builder::new().max_concurrent_streams(3).clone();
    let (sum, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let most = Arc::clone(&peak);
    let (instance, _) = wire::with(builder, move |_, mut respond, _| {
        let (sum, peak) = (Arc::clone(&sum), Arc::clone(&peak));
        async move {
            peak.fetch_max(sum.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            sum.fetch_sub(1, Ordering::SeqCst);
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let proxy = to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    assert_eq!(client.get("/").await.status, 200, "the instance's settings have come");
    let all: Vec<_> = (0..30).map(|_| client.send(get("/"))).collect();
    for reply in futures_join(all).await {
        assert_eq!(reply.unwrap().status, 200);
    }
    let connections = instance.connections();
    assert!((3..=11).contains(&connections), "{connections} connections for 30 requests, 3 at once on each");
    assert!(most.load(Ordering::SeqCst) > 3, "they ran beside each other");
}

async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    soon(
        "all of them",
        std::future::poll_fn(|cx| {
            for (future, output) in futures.iter_mut().zip(&mut outputs) {
                if output.is_none()
                    && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
                {
                    *output = Some(done);
                }
            }
            if outputs.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        }),
    )
    .await;
    outputs.into_iter().flatten().collect()
}

#[tokio::test]
async fn no_request_is_lost_when_the_instance_leaves_its_connections_all_the_time() {
    // Each connection takes ten requests and then says GOAWAY, in the middle of the load.
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let instance = crate::harness::Scripted::raw(move |stream, _| {
        let seen = Arc::clone(&counted);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut taken = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let Ok((body, _)) = read(&mut body).await else { return };
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    seen.fetch_add(1, Ordering::SeqCst);
                    let mut sink = respond.send_response(Response::new(()), false).unwrap();
                    sink.send_data(body.into(), true).unwrap();
                });
                taken += 1;
                if taken == 10 {
                    connection.graceful_shutdown();
                }
            }
        }
    })
    .await;
    let proxy = Arc::new(to(&[instance.address]).await);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let proxy = Arc::clone(&proxy);
        clients.spawn(async move {
            let over_h2 = H2Client::connect(proxy.address).await;
            for turn in 0..40 {
                let text = format!("{client}-{turn}");
                let reply = over_h2.send(post("/", text.as_str())).await.unwrap();
                assert_eq!((reply.status, reply.text()), (200, text));
            }
        });
    }
    soon("the load", async {
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
    })
    .await;
    assert_eq!(seen.load(Ordering::SeqCst), 8 * 40, "each POST was carried out once");
    assert!(instance.connections() >= 20, "{}", instance.connections());
}

#[tokio::test]
async fn a_post_on_a_refused_stream_goes_elsewhere() {
    let (refusing, refused) = wire::instance(|_, mut respond, _| async move {
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let (instance, _) = echo().await;
    let proxy = to(&[refusing.address, instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    for _ in 0..10 {
        let reply = client.send(post("/", "once")).await.unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, "POST / once"));
    }
    assert!(!refused.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_post_on_a_stream_that_was_looked_at_is_not_sent_again() {
    let (resetting, _) = wire::instance(|_, mut respond, _| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let (other, heads) = echo().await;
    let rules = "service: web\npools: {first: id == web-0, other: id == web-1}\nrules:\n  - name: all\n    to: [first, other]\n";
    let proxy = labelled(&[resetting.address, other.address]).rules(rules).start().await;
    let client = H2Client::connect(proxy.address).await;
    assert_eq!(client.send(post("/", "once")).await.unwrap().status, 502);
    assert!(heads.lock().unwrap().is_empty());
    assert_eq!(client.get("/").await.status, 200, "a GET may be");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_instance_and_nobody_else() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let (instance, _) = wire::instance(move |request, mut respond, _| {
        let sent = Arc::clone(&counted);
        async move {
            let mut sink = respond.send_response(Response::new(()), false).unwrap();
            if request.uri().path() == "/small" {
                sink.send_data(Bytes::from_static(b"small"), true).unwrap();
                return;
            }
            let piece = vec![b'x'; 16 * 1024];
            while write_some(&mut sink, &piece).await.is_ok() {
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let proxy = to(&[instance.address]).await;
    let builder =
        h2::client::Builder::new().initial_window_size(16 * 1024).initial_connection_window_size(1 << 20).clone();
    let stalled = H2Client::with(proxy.address, &builder).await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        let (answer, _) = stalled.start(get("/endless").map(|_| ()), true).await;
        unread.push(soon("the head", answer).await.unwrap());
    }
    // Nothing moves any more.
    let mut last = usize::MAX;
    soon("a standstill", async {
        while sent.load(Ordering::SeqCst) != last {
            last = sent.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(last <= 20 * 256 * 1024, "{last} bytes are under way for 20 clients that do not read");
    assert_eq!(stalled.get("/small").await.text(), "small");
    let other = H2Client::connect(proxy.address).await;
    assert_eq!(other.get("/small").await.text(), "small");
    assert_eq!(instance.connections(), 1);
}

async fn write_some(sink: &mut h2::SendStream<Bytes>, mut piece: &[u8]) -> Result<(), h2::Error> {
    while !piece.is_empty() {
        sink.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|cx| sink.poll_capacity(cx)).await.ok_or(Reason::CANCEL)??.min(piece.len());
        sink.send_data(Bytes::copy_from_slice(&piece[..room]), false)?;
        piece = &piece[room..];
    }
    Ok(())
}

#[tokio::test]
async fn both_directions_of_a_stream_move_on_their_own() {
    // The instance sends all of its answer before it reads a byte of the request, and the client the other way round.
    let (instance, _) = wire::instance(|request, mut respond, _| async move {
        let mut sink = respond.send_response(Response::new(()), false).unwrap();
        write(&mut sink, &vec![b'd'; 300_000], false).await.unwrap();
        let (up, _) = read(&mut request.into_body()).await.unwrap();
        sink.send_data(up.len().to_string().into(), true).unwrap();
    })
    .await;
    let proxy = to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let (answer, mut stream) = client.start(post("/", "").map(|_| ()), false).await;
    let mut body = soon("the head", answer).await.unwrap().into_body();
    let up = write(&mut stream, &[b'u'; 40_000], true);
    let (up, down) = tokio::join!(up, read(&mut body));
    up.unwrap();
    let (down, _) = down.unwrap();
    assert_eq!((down.len(), &down[300_000..]), (300_005, &b"40000"[..]));
}

#[tokio::test]
async fn heads_without_bodies_stay_so() {
    let (instance, _) = wire::instance(|request, mut respond, _| async move {
        let status = if request.uri().path() == "/304" { 304 } else { 200 };
        let head = Response::builder().status(status).header("content-length", "9").body(()).unwrap();
        respond.send_response(head, true).unwrap();
    })
    .await;
    let proxy = to(&[instance.address]).await;
    let mut client = proxy.client().await;
    client.send("HEAD / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!((reply.status, reply.field("content-length").as_deref()), (200, Some("9")));
    client.send("GET /304 HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 304);
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_is_passed_over() {
    let gone = unused();
    let (instance, _) = echo().await;
    let proxy = to(&[gone, instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    let all: Vec<_> = (0..20).map(|_| client.send(post("/", "x"))).collect();
    for reply in futures_join(all).await {
        assert_eq!(reply.unwrap().status, 200);
    }
}
