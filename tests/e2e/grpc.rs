//! gRPC and gRPC-Web.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use pointsman::engine::health::Kind;

use crate::harness::h2::{H2Client, H2Reply, collect, instance, read, write};
use crate::harness::{Proxy, Setup, instance as named, soon};

/// Labelled as speaking gRPC.
fn to(addresses: &[std::net::SocketAddr], policies: &str) -> Setup {
    let instances = addresses.iter().enumerate();
    let instances = instances.map(|(at, addr)| named(&format!("web-{at}"), *addr, &[("proto", "grpc")])).collect();
    let rules = format!("{}{policies}", crate::harness::ONE_POOL);
    Setup { instances, ..Setup::default() }.rules(&rules)
}

fn call(path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://shop{path}")).header("te", "trailers");
    for (name, value) in [("content-type", "application/grpc")].iter().chain(fields) {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn message(text: &str) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn only(code: &str) -> Response<()> {
    Response::builder().header("content-type", "application/grpc").header("grpc-status", code).body(()).unwrap()
}

/// Answers each piece of the request with the same one, then `OK`.
async fn echo() -> (crate::harness::Scripted, crate::harness::h2::Heads) {
    instance(|request, mut respond, _| async move {
        let mut body = request.into_body();
        let mut sink = respond.send_response(head(), false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            if sink.send_data(data, false).is_err() {
                return;
            }
        }
        let _ = sink.send_trailers(status("0"));
    })
    .await
}

async fn unary(client: &H2Client, request: Request<()>, text: &str) -> Result<H2Reply, h2::Error> {
    let (answer, mut stream) = client.start(request, false).await;
    write(&mut stream, &message(text), true).await?;
    collect(soon("the answer", answer).await?).await
}

#[tokio::test]
async fn what_rules_answer_themselves_is_a_status_to_a_call() {
    let (instance, heads) = echo().await;
    let rules = "service: web\npools: {all: id exists, nobody: version == 9}\nrules:\n  \
        - {name: stranger, when: path under \"/who\", respond: {status: 401, body: \"who are you?\\n\"}}\n  \
        - {name: denied, when: path under \"/admin\", respond: {status: 403, body: \"100% no \u{fc}\"}}\n  \
        - {name: moved, when: path under \"/old\", redirect: \"https://new.test/\"}\n  \
        - {name: busy, when: path under \"/busy\", to: [nobody], else: 429}\n  \
        - {name: gone, when: path under \"/gone\", to: [nobody]}\n  - {name: all, to: [all]}\n";
    let proxy = to(&[instance.address], "").rules(rules).start().await;
    let client = H2Client::connect(proxy.address).await;
    for (path, code, message) in [
        ("/who/Am", "16", "who are you?"),
        ("/admin/Drop", "7", "100%25 no %C3%BC"),
        ("/old/Call", "2", ""),
        ("/busy/Call", "14", "no_routable_instance"),
        ("/gone/Call", "14", "no_routable_instance"),
    ] {
        let reply = unary(&client, call(path, &[]), "x").await.unwrap();
        assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/grpc")), "{path}");
        assert_eq!((reply.field("grpc-status"), reply.field("grpc-message")), (Some(code), Some(message)), "{path}");
        assert!(reply.body.is_empty(), "{path}");
    }
    assert!(heads.lock().unwrap().is_empty());
    let reply = client.get("/admin/x").await;
    assert_eq!((reply.status, reply.field("grpc-status")), (403, None), "to others it is what the rule says");
}

#[tokio::test]
async fn a_unary_call_passes_with_its_trailers() {
    let (instance, heads) = echo().await;
    let proxy = to(&[instance.address], "").start().await;
    let client = H2Client::connect(proxy.address).await;
    let reply = unary(&client, call("/shop.Cart/Add", &[]), "one").await.unwrap();
    assert_eq!(
        (reply.status, reply.body.as_slice(), reply.trailer("grpc-status")),
        (200, &message("one")[..], Some("0"))
    );
    assert_eq!(heads.lock().unwrap()[0].headers()["te"], "trailers");
}

#[tokio::test]
async fn messages_of_both_sides_pass_one_by_one() {
    let (instance, _) = echo().await;
    let proxy = to(&[instance.address], "").start().await;
    let client = H2Client::connect(proxy.address).await;
    let (answer, mut stream) = client.start(call("/shop.Cart/Watch", &[]), false).await;
    let mut back = soon("the head", answer).await.unwrap().into_body();
    for turn in 0..5 {
        let sent = message(&turn.to_string());
        write(&mut stream, &sent, false).await.unwrap();
        let data = soon("its echo", back.data()).await.unwrap().unwrap();
        back.flow_control().release_capacity(data.len()).unwrap();
        assert_eq!(data, sent, "before the next one was sent");
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (rest, trailers) = read(&mut back).await.unwrap();
    assert_eq!((rest.len(), trailers), (0, Some(status("0"))));
}

#[tokio::test]
async fn refusals_are_statuses_of_grpc() {
    let proxy = Proxy::to(&[]).await;
    let client = H2Client::connect(proxy.address).await;
    let reply = unary(&client, call("/x", &[]), "").await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status"), reply.body.len()), (200, Some("14"), 0));
    assert_eq!(reply.field("grpc-message"), Some("no_routable_instance"));
    let rules = "service: web\nhosts: [other]\npools: {all: id exists}\nrules:\n  - name: all\n    to: [all]\n";
    let proxy = Setup::default().rules(rules).start().await;
    let client = H2Client::connect(proxy.address).await;
    let reply = unary(&client, call("/x", &[]), "").await.unwrap();
    assert_eq!((reply.field("grpc-status"), reply.field("content-type")), (Some("12"), Some("application/grpc")));
}

#[tokio::test]
async fn a_call_ends_with_its_own_deadline() {
    let (cancelled, mut told) = tokio::sync::mpsc::channel(1);
    let (instance, _) = instance(move |_, mut respond, _| {
        let cancelled = cancelled.clone();
        async move {
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            cancelled.send(reset.ok()).await.unwrap();
        }
    })
    .await;
    let proxy = to(&[instance.address], "").start().await;
    let client = H2Client::connect(proxy.address).await;
    let started = std::time::Instant::now();
    let reply = unary(&client, call("/x", &[("grpc-timeout", "300m")]), "").await.unwrap();
    assert_eq!(reply.field("grpc-status"), Some("4"));
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    assert_eq!(soon("the cancellation", told.recv()).await.unwrap(), Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_call_that_gives_no_time_says_nothing_against_the_instance() {
    for (path, timeout, blamed) in
        [("/silent", "20m", false), ("/stalls", "20m", false), ("/says", "20m", false), ("/says", "", true)]
    {
        let (instance, _) = instance(|request, mut respond, _| async move {
            match request.uri().path() {
                "/silent" => std::future::pending().await,
                "/stalls" => {
                    let mut sink = respond.send_response(head(), false).unwrap();
                    sink.send_data(message("part").into(), false).unwrap();
                    std::future::pending().await
                }
                // By the deadline that it was told.
                _ => drop(respond.send_response(only("4"), true).unwrap()),
            }
        })
        .await;
        let proxy = to(&[instance.address], "eject: {max_ejection_percent: 100%, min_routable: 0}\n").start().await;
        let client = H2Client::connect(proxy.address).await;
        let fields: &[_] = if timeout.is_empty() { &[] } else { &[("grpc-timeout", timeout)] };
        for _ in 0..8 {
            let reply = unary(&client, call(path, fields), "").await.unwrap();
            let status = reply.field("grpc-status").or(reply.trailer("grpc-status"));
            assert!(status == Some("4") || blamed, "{path}: {status:?}");
        }
        let moved = proxy.transitions.all();
        let is_out = moved.iter().any(|(_, transition)| matches!(transition.kind, Kind::Ejected { .. }));
        assert_eq!(is_out, blamed, "{path} {timeout}: {moved:?}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_a_status() {
    let (instance, _) = instance(|_, mut respond, _| async move {
        let mut sink = respond.send_response(head(), false).unwrap();
        sink.send_data(message("part").into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        sink.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let proxy = to(&[instance.address], "").start().await;
    let client = H2Client::connect(proxy.address).await;
    let reply = unary(&client, call("/x", &[]), "").await.unwrap();
    assert_eq!((reply.body.as_slice(), reply.trailer("grpc-status")), (&message("part")[..], Some("14")));
}

#[tokio::test]
async fn statuses_in_heads_and_in_trailers_count_against_the_instance() {
    for in_head in [true, false] {
        let (instance, _) = instance(move |_, mut respond, _| async move {
            if in_head {
                respond.send_response(only("14"), true).unwrap();
            } else {
                respond.send_response(head(), false).unwrap().send_trailers(status("14")).unwrap();
            }
        })
        .await;
        let proxy = to(&[instance.address], "eject: {max_ejection_percent: 100%, min_routable: 0}\n").start().await;
        let client = H2Client::connect(proxy.address).await;
        for _ in 0..5 {
            let reply = unary(&client, call("/x", &[]), "").await.unwrap();
            assert_eq!(reply.field("grpc-status").or(reply.trailer("grpc-status")), Some("14"));
        }
        let moved = proxy.transitions.all();
        let is_out = moved.iter().any(|(_, transition)| matches!(transition.kind, Kind::Ejected { .. }));
        assert!(is_out, "in_head {in_head}: {moved:?}");
    }
}

#[tokio::test]
async fn a_status_that_the_rules_name_is_tried_elsewhere() {
    let (busy, refused) = instance(|_, mut respond, _| async move {
        respond.send_response(only("14"), true).unwrap();
    })
    .await;
    let (ready, _) = echo().await;
    let addresses = [busy.address, ready.address];
    let proxy = to(&addresses, "retry: {on: [connect, unavailable]}\n").start().await;
    let client = H2Client::connect(proxy.address).await;
    for _ in 0..10 {
        let reply = unary(&client, call("/x", &[]), "again").await.unwrap();
        assert_eq!((reply.trailer("grpc-status"), reply.body.as_slice()), (Some("0"), &message("again")[..]));
    }
    assert!(!refused.lock().unwrap().is_empty());
    let proxy = to(&addresses, "").start().await;
    let client = H2Client::connect(proxy.address).await;
    let mut passed_on = 0;
    for _ in 0..10 {
        let reply = unary(&client, call("/x", &[]), "once").await.unwrap();
        passed_on += usize::from(reply.field("grpc-status") == Some("14"));
    }
    assert!(passed_on > 0, "without the name, the instance's status is the answer");
}

#[tokio::test]
async fn grpc_web_is_translated_in_both_forms() {
    let (instance, heads) = echo().await;
    let proxy = to(&[instance.address], "").start().await;
    let end = [&[0x80, 0, 0, 0, 16][..], b"grpc-status: 0\r\n"].concat();
    let ask = |kind: &str, body: &[u8]| {
        let head = format!(
            "POST /x HTTP/1.1\r\nhost: shop\r\ncontent-type: application/{kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let mut client = proxy.client().await;
    client.send(ask("grpc-web+proto", &message("bytes"))).await;
    let reply = client.reply().await;
    assert_eq!(reply.field("content-type").as_deref(), Some("application/grpc-web+proto"));
    assert_eq!(reply.body, [message("bytes"), end.clone()].concat());
    client.send(ask("grpc-web-text", BASE64.encode(&message("text")).as_bytes())).await;
    let reply = client.reply().await;
    assert_eq!(reply.field("content-type").as_deref(), Some("application/grpc-web-text+proto"));
    let decoded: Vec<u8> = reply.text().as_bytes().chunks(4).flat_map(|group| BASE64.decode(group).unwrap()).collect();
    assert_eq!(decoded, [message("text"), end].concat());
    let heads = heads.lock().unwrap();
    assert_eq!(
        (&heads[0].headers()["content-type"], &heads[0].headers()["te"]),
        (&"application/grpc+proto".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert_eq!(heads[1].headers()["content-type"], "application/grpc");
}

#[tokio::test]
async fn grpc_web_text_that_is_none_is_the_clients_fault() {
    let (instance, _) = echo().await;
    let proxy = to(&[instance.address], "").start().await;
    let reply = proxy
        .ask("POST /x HTTP/1.1\r\nhost: shop\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 4\r\n\r\n!!!!")
        .await;
    assert_ne!(reply.field("grpc-status").as_deref(), Some("0"));
    assert!(proxy.transitions.all().is_empty());
}
