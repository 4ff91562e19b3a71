//! Client and server of grpcio: all kinds of calls, deadlines, cancellation, statuses and metadata, and many calls; and
//! gRPC-Web by `sonora` to the same server.

use std::time::Duration;

use crate::ground::{Ground, Service};
use crate::tools::{Background, python, run};

/// A running tests/python/grpc_server.py and its port.
pub fn server() -> (Background, u16) {
    let mut server = Background::start(python("grpc_server.py"));
    let port = server.line().parse().expect("its port");
    (server, port)
}

const PARTS: &str = "ok unary\nok server stream\nok client stream\nok bidi\nok deadline\nok cancellation\nok status\n\
                     ok metadata\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_calls_grpcio_in_all_four_kinds_and_ten_thousand_times() {
    let (mut server, port) = server();
    let ports = [port];
    let service = Service { labels: "proto: grpc", ..Service::new("echo", &ports) };
    let ground = Ground::new(&[service], "").await;
    let mut client = python("grpc_client.py");
    client.args([&ground.plain.to_string(), "echo.shop.test", "10000"]);
    let told = tokio::task::spawn_blocking(move || run(&mut client, Duration::from_secs(180))).await.unwrap();
    assert_eq!(told, format!("{PARTS}ok 10000 calls\n"));
    // The deadline and the cancellation have reached the server.
    for _ in 0..2 {
        assert_eq!(server.line(), "cancelled hold");
    }
    let opened = ground.metric("pointsman_upstream_connections_opened_total").await;
    assert!(opened <= 8.0, "{opened} connections for one client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_calls_over_tls() {
    let (_server, port) = server();
    let ports = [port];
    let service = Service { labels: "proto: grpc", ..Service::new("echo", &ports) };
    let ground = Ground::new(&[service], "").await;
    let mut client = python("grpc_client.py");
    client.args([&ground.tls.to_string(), "echo.shop.test", "500"]).arg(ground.at("ca.pem"));
    let told = tokio::task::spawn_blocking(move || run(&mut client, Duration::from_secs(120))).await.unwrap();
    assert_eq!(told, format!("{PARTS}ok 500 calls\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_grpc_web_is_answered_by_a_server_that_knows_only_grpc() {
    let (_server, port) = server();
    let ports = [port];
    let service = Service { labels: "proto: grpc", ..Service::new("echo", &ports) };
    let ground = Ground::new(&[service], "").await;
    let ca = ground.at("ca.pem");
    let parts = ["unary", "server stream", "status", "status behind a message", "deadline", "unimplemented"];
    let wanted: String = parts.iter().map(|part| format!("ok {part}\n")).collect();
    for (to, ca) in [(ground.plain, None), (ground.tls, Some(&ca))] {
        let mut client = python("grpc_web_client.py");
        client.args([&to.port().to_string(), "echo.shop.test"]).args(ca);
        let told = tokio::task::spawn_blocking(move || run(&mut client, Duration::from_secs(120))).await.unwrap();
        assert_eq!(told, wanted);
    }
}
