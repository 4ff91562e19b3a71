//! A listener of the built binary that passes TLS on: where a greeting goes, that `explain --sni` says the same, and the
//! line and the metrics that each connection leaves.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use pointsman::engine::format::traffic::TrafficLine;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::binary::Proxy;
use crate::support::site::{admin_get, ready, until};

const RULES: &str = "service: db\nhosts: [db.test]\nlocality: {prefer: [region]}\npools: {all: id exists}\nrules: [{name: \
    all, to: [all]}]\n";

/// The bytes with which a TLS client begins.
fn greeting(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Somebody behind the proxy who says who it is, how much it was sent first, and closes.
async fn instance(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = vec![0; 4096];
                let count = stream.read(&mut read).await.unwrap_or(0);
                let _ = stream.write_all(format!("{name} {count}").as_bytes()).await;
            });
        }
    });
    (address, task)
}

/// What a client that greets with this name is told by whoever it reaches.
async fn greet(to: SocketAddr, name: &str) -> (String, usize) {
    let (mut stream, hello) = (TcpStream::connect(to).await.unwrap(), greeting(name));
    stream.write_all(&hello).await.unwrap();
    let mut told = Vec::new();
    // A reset counts as an end.
    let _ = stream.read_to_end(&mut told).await;
    (String::from_utf8_lossy(&told).into_owned(), hello.len())
}

fn explain(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("explain").args(args).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

async fn metrics(admin: SocketAddr) -> String {
    admin_get(admin, "/metrics").await.unwrap().1.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_goes_to_the_nearest_instance_as_explain_says_and_leaves_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let ((eu, eu_task), (us, _us_task)) = (instance("db-eu").await, instance("db-us").await);
    let catalog = format!(
        "services:\n  db:\n    - {{id: db-eu, address: 127.0.0.1, port: {}, labels: {{region: eu}}}}\n    - {{id: db-us, \
         address: 127.0.0.1, port: {}, labels: {{region: us}}}}\n",
        eu.port(),
        us.port()
    );
    std::fs::write(at("catalog.yaml"), catalog).unwrap();
    std::fs::write(at("db.yaml"), RULES).unwrap();
    let config = format!(
        "listen:\n  - {{address: 127.0.0.1:0, tls_passthrough: true}}\nadmin: {{address: 127.0.0.1:0}}\nregion: eu\n\
         access_log: {{path: {}}}\n",
        at("access.log")
    );
    std::fs::write(at("pointsman.yaml"), config).unwrap();
    let (config, catalog, rules) = (at("pointsman.yaml"), at("catalog.yaml"), at("db.yaml"));
    let mut proxy = Proxy::start_with(&["--config", &config, "--catalog", &catalog, "--rules", &rules]);
    ready(proxy.admin).await;
    for _ in 0..10 {
        let (told, sent) = greet(proxy.listen, "db.test").await;
        assert_eq!(told, format!("db-eu {sent}"), "the nearest one gets the greeting whole");
    }
    assert_eq!(greet(proxy.listen, "other.test").await.0, "", "no file claims it");

    let read = || std::fs::read_to_string(at("access.log")).unwrap_or_default();
    until("each connection has left its line", async || read().lines().count() == 11).await;
    let admin = proxy.admin.to_string();
    for line in read().lines() {
        let parsed = TrafficLine::parse(line).unwrap();
        let (draw, sni) = (parsed.draw.clone().unwrap(), parsed.sni.clone().unwrap());
        assert_eq!((parsed.method.as_str(), parsed.scheme.as_deref()), ("CONNECT", Some("https")), "{line}");
        assert_eq!(parsed.host, sni, "{line}");
        let result = &parsed.rest["result"];
        let asked = ["--sni", &sni, "--draw", &draw];
        let live = explain(&[&["--admin", &admin][..], &asked].concat());
        let dry = ["--rules", &rules, "--catalog", &catalog, "--region", "eu"];
        let dry = explain(&[&dry[..], &asked].concat());
        match result["instance"].as_str() {
            Some(instance) => {
                assert_eq!(result["status"], 200, "{line}");
                let wanted = format!("→ {instance} {eu} (pool all, level 0), rule all");
                assert!(live.contains(&wanted) && dry.contains(&wanted), "{line}\n{live}\n{dry}");
            }
            None => {
                assert_eq!((sni.as_str(), &result["detail"]), ("other.test", &Value::from("no_route")), "{line}");
                assert!(live.contains("refused 404 no_route") && dry.contains("refused 404 no_route"), "{live}\n{dry}");
            }
        }
    }
    let told = metrics(proxy.admin).await;
    let counted = told.lines().find(|line| line.starts_with("pointsman_requests_total{service=\"db\",rule=\"all\""));
    assert!(counted.is_some_and(|line| line.ends_with(" 10")), "{counted:?}");
    assert!(told.contains("pointsman_errors_total{service=\"\",detail=\"no_route\"} 1"), "{told}");

    // Nobody listens at the nearest one any more: no client sees that, and soon it is not asked again.
    eu_task.abort();
    let _ = eu_task.await;
    for _ in 0..10 {
        let (told, sent) = greet(proxy.listen, "db.test").await;
        assert_eq!(told, format!("db-us {sent}"));
    }
    until("it is ejected", async || metrics(proxy.admin).await.contains("pointsman_ejections_total{service=\"db\""))
        .await;
    assert!(
        metrics(proxy.admin).await.contains("pointsman_retries_total{service=\"db\",rule=\"all\",reason=\"connect\"}")
    );
    until("explain says so, too", async || explain(&["--admin", &admin, "--sni", "db.test"]).contains("→ db-us")).await;
    proxy.signal("TERM");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
}
