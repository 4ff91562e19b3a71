//! Client and server of the Python package `websockets`.

use std::time::Duration;

use crate::ground::{Ground, Service};
use crate::tools::{Background, python, run};

/// A running tests/python/websocket_server.py and its port.
pub fn server() -> (Background, u16) {
    let mut server = Background::start(python("websocket_server.py"));
    let port = server.line().parse().expect("its port");
    (server, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_fragments_pings_and_close_codes_pass_both_ways() {
    let (mut server, port) = server();
    let ground = Ground::new(&[Service::new("ws", &[port])], "").await;
    let mut client = python("websocket_client.py");
    client.args([&ground.plain.port().to_string(), "ws.shop.test"]);
    let told = tokio::task::spawn_blocking(move || run(&mut client, Duration::from_secs(120))).await.unwrap();
    let parts = ["text", "binary", "fragments", "ping", "1 MiB", "close by the client", "close by the server"];
    let parts: Vec<String> =
        parts.iter().chain(&["ping of the server", "50 at once"]).map(|p| format!("ok {p}\n")).collect();
    assert_eq!(told, parts.concat());
    let closed: Vec<String> = (0..3).map(|_| server.line()).collect();
    assert_eq!(closed, ["closed 4001 that is all", "closed 4002 enough", "closed 1000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_go_over_http2_in_the_clear_and_over_tls() {
    let (_server, port) = server();
    let ground = Ground::new(&[Service::new("ws", &[port])], "").await;
    let ca = ground.at("ca.pem");
    let parts = ["text", "1 MiB", "fragments", "ping", "20 on one connection", "close by the client"];
    let parts = parts.iter().chain(&["close by the server", "refusal"]).map(|part| format!("ok {part}\n"));
    let wanted = parts.collect::<String>();
    for (to, ca) in [(ground.plain, None), (ground.tls, Some(&ca))] {
        let mut client = python("websocket_h2_client.py");
        client.args([&to.port().to_string(), "ws.shop.test"]).args(ca);
        let told = tokio::task::spawn_blocking(move || run(&mut client, Duration::from_secs(120))).await.unwrap();
        assert_eq!(told, wanted);
    }
    assert!(ground.metric("pointsman_h2_connections_total").await >= 2.0);
}
