//! SIGTERM under load of other people's clients: no call lost, streams ended as their protocols say, within the deadline.

use std::time::{Duration, Instant};

use crate::ground::{Ground, Service};
use crate::tools::{Background, python};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_call_and_ends_streams_as_their_protocols_say() {
    let (_calls, grpc) = crate::grpc::server();
    let (_sockets, websocket) = crate::websockets::server();
    let (echo, ws) = ([grpc], [websocket]);
    let services = [Service { labels: "proto: grpc", ..Service::new("echo", &echo) }, Service::new("ws", &ws)];
    let mut ground = Ground::new(&services, "drain: {delay: 1s, timeout: 6s}").await;
    let mut calls = python("grpc_drain.py");
    calls.args([&ground.plain.to_string(), "echo.shop.test"]);
    let mut sockets = python("websocket_client.py");
    sockets.args([&ground.plain.port().to_string(), "ws.shop.test", "drain"]);
    let (mut calls, mut sockets) = (Background::start(calls), Background::start(sockets));
    assert_eq!((calls.line(), sockets.line()), ("running".to_owned(), "running".to_owned()));

    ground.proxy.signal("TERM");
    let told = Instant::now();
    let status = ground.proxy.wait();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{}", ground.proxy.log());
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(9), "delay 1 s and timeout 6 s, not {took:?}");
    let (calls, sockets) = (calls.rest(), sockets.rest());
    assert_eq!(calls[0], "finite 25 OK", "a stream that ends before the deadline is whole: {calls:?}");
    assert!(calls[1].starts_with("endless UNAVAILABLE"), "{calls:?}");
    assert!(calls[2].contains(" lost 0 "), "{calls:?}");
    assert_eq!(sockets, ["busy 1001", "idle 1001"]);
}
