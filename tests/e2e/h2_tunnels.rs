//! WebSocket over HTTP/2 (RFC 8441), on either side.

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::h2::{H2Client, instance as h2_instance, read, write};
use crate::harness::{ONE_POOL, Proxy, Scripted, Setup, instance, ok, read_request, soon};
use pointsman::engine::instance::Status;

fn connect(path: &str, protocol: &'static str) -> Request<()> {
    let mut request =
        Request::connect(format!("http://shop{path}")).header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

/// An instance of HTTP/1 that agrees and echoes; with a proof of nothing where `lies`.
async fn echo(lies: bool) -> Scripted {
    greeting(b"welcome", lies).await
}

async fn greeting(text: &'static [u8], lies: bool) -> Scripted {
    Scripted::raw(move |mut stream, _| async move {
        let seen = read_request(&mut stream, &mut Vec::new(), 0, 0).await.unwrap();
        assert_eq!(seen.line(), "GET /ws HTTP/1.1");
        assert_eq!(seen.field("sec-websocket-version").as_deref(), Some("13"));
        let key = seen.field("sec-websocket-key").unwrap();
        let proof = pointsman::forward::websocket::accept(key.as_bytes());
        let proof = if lies { "nothing" } else { proof.to_str().unwrap() };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {proof}\r\n\r\n"
        );
        stream.write_all(&[answer.as_bytes(), text].concat()).await.unwrap();
        let mut some = vec![0u8; 4096];
        while let Ok(n) = stream.read(&mut some).await {
            if n == 0 || stream.write_all(&some[..n]).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// The client's connection, once it knows that tunnels are possible.
async fn client(proxy: &Proxy) -> H2Client {
    let client = H2Client::connect(proxy.address).await;
    soon("the settings", async {
        while !client.sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client
}

async fn echoes(client: &H2Client) {
    let (answer, mut up) = client.start(connect("/ws", "websocket"), false).await;
    let response = soon("the yes", answer).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("upgrade") && !response.headers().contains_key("sec-websocket-accept"));
    let mut down = response.into_body();
    let long = vec![b'l'; 300_000];
    let reading = async {
        let mut got = Vec::new();
        while got.len() < 7 + long.len() {
            let data = soon("the echo", down.data()).await.unwrap().unwrap();
            down.flow_control().release_capacity(data.len()).unwrap();
            got.extend_from_slice(&data);
        }
        got
    };
    let (sent, got) = tokio::join!(write(&mut up, &long, false), reading);
    sent.unwrap();
    assert!(&got[..7] == b"welcome" && got[7..] == long);
    up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(&mut down).await.unwrap(), (Vec::new(), None));
}

#[tokio::test]
async fn a_websocket_over_http2_reaches_an_instance_of_http1() {
    let instance = echo(false).await;
    let proxy = Proxy::to(&[instance.address]).await;
    echoes(&client(&proxy).await).await;
}

#[tokio::test]
async fn an_instance_that_proves_nothing_gets_no_tunnel() {
    let instance = echo(true).await;
    let rules = format!("{ONE_POOL}eject: {{consecutive_5xx: 1}}\n");
    let proxy = Setup { logs: true, ..Setup::to(&[instance.address]) }.rules(&rules).start().await;
    let client = client(&proxy).await;
    let (answer, _up) = client.start(connect("/ws", "websocket"), false).await;
    let response = soon("the no", answer).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["x-pointsman-error"], "upstream_malformed");
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["status"].as_u64(), line["detail"].as_str()), (Some(502), Some("upstream_malformed")));
    assert!(proxy.metric("pointsman_errors_total{service=\"web\",detail=\"upstream_malformed\"} 1").is_some());
    assert_eq!(proxy.transitions.all().len(), 1, "it counts against the instance");
}

#[tokio::test]
async fn a_protocol_that_is_not_allowed_gets_no_tunnel() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = client(&proxy).await;
    let (answer, _up) = client.start(connect("/ws", "connect-udp"), false).await;
    let response = soon("the no", answer).await.unwrap();
    assert_eq!((response.status(), instance.requests().len()), (StatusCode::METHOD_NOT_ALLOWED, 0));
}

#[tokio::test]
async fn an_answer_that_is_no_101_opens_no_tunnel() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = client(&proxy).await;
    let (answer, _up) = client.start(connect("/ws", "websocket"), false).await;
    assert_eq!(soon("the no", answer).await.unwrap().status(), 502);
}

/// An instance of HTTP/2 that takes tunnels and echoes.
async fn echo_over_h2(text: &'static [u8]) -> Scripted {
    let (instance, _) = h2_instance(move |request, mut respond, _| async move {
        assert_eq!(request.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        let mut sink = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        sink.send_data(Bytes::from_static(text), false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            sink.send_data(data, false).unwrap();
        }
        sink.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    instance
}

#[tokio::test]
async fn an_instance_of_http2_gets_an_extended_connect_from_either_kind_of_client() {
    let upstream = echo_over_h2(b"welcome").await;
    let instances = vec![instance("web-0", upstream.address, &[("proto", "h2c")])];
    let proxy = Setup { instances, ..Setup::default() }.start().await;
    echoes(&client(&proxy).await).await;
    let mut old = proxy.client().await;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    old.send(format!(
        "GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: {key}\r\n\r\nearly"
    ))
    .await;
    let reply = old.reply().await;
    assert_eq!(
        (reply.status, reply.field("sec-websocket-accept").as_deref()),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    assert_eq!(old.raw(12).await, b"welcomeearly");
    assert_eq!(upstream.connections(), 1, "both on one connection");
}

#[tokio::test]
async fn a_drain_says_goodbye_to_a_websocket_on_a_stream() {
    let instance = greeting(&[0x81, 2, b'o', b'k'], false).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = client(&proxy).await;
    let (answer, _up) = client.start(connect("/ws", "websocket"), false).await;
    let mut down = soon("the yes", answer).await.unwrap().into_body();
    let mut got = soon("the greeting", down.data()).await.unwrap().unwrap().to_vec();
    assert_eq!(got, [0x81, 2, b'o', b'k']);
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(1)));
    while let Some(Ok(data)) = soon("goodbye", down.data()).await {
        got.extend_from_slice(&data);
    }
    assert!(got.ends_with(&[0x88, 2, 0x03, 0xE9]), "close with 1001: {got:x?}");
    soon("the drain", draining).await.unwrap();
}

/// The next bytes of a tunnel, so many.
async fn next(down: &mut h2::RecvStream, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < count {
        let data = soon("the tunnel's bytes", down.data()).await.unwrap().unwrap();
        down.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    got
}

#[tokio::test]
async fn a_websocket_on_a_stream_outlives_its_instances_leave_and_is_told_goodbye_at_its_age() {
    type Leave = fn(&Proxy, &mut Setup);
    let ways: [(&str, Leave); 3] = [
        ("the catalog no longer names it", |_, setup| drop(setup.instances.remove(0))),
        ("an operator drains it", |proxy, _| assert!(proxy.live(0).set_drained(true))),
        ("it is in maintenance", |_, setup| setup.instances[0].status = Status::Maintenance),
    ];
    const GREETING: &[u8] = &[0x81, 2, b'o', b'k'];
    let rules = "service: web\npools: {first: id == web-0, other: id == web-1}\ntimeout: {max_stream_age: 4s}\n\
                 rules: [{name: all, to: [first, other]}]\n";
    for (what, leave) in ways {
        for (protocol, leaving) in [("h1", greeting(GREETING, false).await), ("h2c", echo_over_h2(GREETING).await)] {
            let other = Scripted::http(|_| ok("elsewhere")).await;
            let setup = || {
                let labels = [("proto", protocol)];
                let labels = if protocol == "h2c" { &labels[..] } else { &[] };
                let instances = vec![instance("web-0", leaving.address, labels), instance("web-1", other.address, &[])];
                Setup { instances, ..Setup::default() }.rules(rules)
            };
            let proxy = setup().start().await;
            let client = client(&proxy).await;
            let (answer, mut up) = client.start(connect("/ws", "websocket"), false).await;
            let mut down = soon("the yes", answer).await.unwrap().into_body();
            assert_eq!(next(&mut down, 4).await, GREETING);
            let mut without = setup();
            leave(&proxy, &mut without);
            proxy.publish(&without);
            assert_eq!(client.get("/").await.text(), "elsewhere", "{what}, {protocol}: others go elsewhere");
            // Past the sweep that lets go of connections to whom the catalog does not name.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            let said = [0x82, 0x81, 0, 0, 0, 0, b'x'];
            up.send_data(Bytes::copy_from_slice(&said), false).unwrap();
            assert_eq!(next(&mut down, 7).await, said, "{what}, {protocol}: it goes on");
            assert_eq!(next(&mut down, 4).await, [0x88, 2, 0x03, 0xE9], "{what}, {protocol}: close with 1001");
            while let Some(Ok(data)) = soon("the end", down.data()).await {
                assert!(data.is_empty(), "{what}, {protocol}: nothing behind it");
            }
        }
    }
}
