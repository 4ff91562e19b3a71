//! A TLS listener of the built binary: certificates that change on disk, what operators see, what is refused at start.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::front::Authority;
use crate::support::binary::Proxy;
use crate::support::site::{Site, admin_get, ready, replace, until};

const RULES: &str = "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";

fn client(authority: &Authority) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(authority.roots()).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// One request on a connection of its own: its answer, and the certificate that was shown.
async fn get(config: &Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<(String, Vec<u8>)> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("web.test").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer, stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_on_disk_are_taken_over_under_load_and_broken_ones_are_told_of() {
    let site = Site::new(&["web-1 version=1.2"], RULES).await;
    let authority = Authority::new("the test's");
    let (cert, key) = (site.path("cert.pem"), site.path("key.pem"));
    authority.issue("web.test").write(&cert, &key);
    let config = site.path("pointsman.yaml");
    let text = format!(
        "listen: [{{address: 127.0.0.1:0, tls: {{cert: {}, key: {}}}}}]\nadmin: {{address: 127.0.0.1:0}}\n",
        cert.display(),
        key.display()
    );
    std::fs::write(&config, text).unwrap();
    let (catalog, rules) = (site.catalog(), site.rules());
    let mut proxy = Proxy::start_with(&[
        "--config",
        config.to_str().unwrap(),
        "--catalog",
        catalog.to_str().unwrap(),
        "--rules",
        rules.to_str().unwrap(),
    ]);
    ready(proxy.admin).await;
    let client = client(&authority);
    let mut seen = std::collections::HashSet::new();
    seen.insert(get(&client, proxy.listen).await.unwrap().1);
    for _ in 0..5 {
        let next = authority.issue("web.test");
        replace(&key, &next.key);
        replace(&cert, &next.cert);
        // Every answer on the way is a good one.
        until("the new certificate is shown", async || {
            let (answer, shown) = get(&client, proxy.listen).await.expect("no request fails");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            seen.insert(shown)
        })
        .await;
    }
    replace(&cert, "no certificate");
    let failed = "pointsman_reload_total{what=\"certificates\",result=\"failed\"}";
    until("the broken file is counted", async || admin_text(proxy.admin, "/metrics").await.contains(failed)).await;
    until("the log names it", async || proxy.log().contains("cert.pem: no certificate in it")).await;
    let (answer, _) = get(&client, proxy.listen).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let (_, shown) = admin_get(proxy.admin, "/v1/certificates").await.unwrap();
    let certificate = &shown["listeners"][0]["certificates"][0];
    assert_eq!(certificate["names"][0], "web.test");
    assert!(certificate["expires_in_seconds"].as_f64().is_some_and(|seconds| seconds > 1e6), "{shown}");
    let metrics = admin_text(proxy.admin, "/metrics").await;
    assert!(metrics.contains("pointsman_tls_certificate_expiry_seconds{listener="), "{metrics}");
    proxy.signal("TERM");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
}

#[test]
fn a_listener_whose_files_cannot_be_used_is_refused_with_every_reason() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("web.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let catalog = folder.path().join("catalog.yaml");
    std::fs::write(&catalog, "services: {}\n").unwrap();
    let config = folder.path().join("pointsman.yaml");
    let text = "listen:\n  - {address: 127.0.0.1:0, tls: {cert: missing.pem, key: lost.pem}}\n  \
                - {address: 127.0.0.1:0, proxy_protocol: true}\n";
    std::fs::write(&config, text).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["run", "--admin", "off", "--config", config.to_str().unwrap()])
        .args(["--catalog", catalog.to_str().unwrap(), "--rules", rules.to_str().unwrap()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("missing.pem") && told.contains("`proxy_protocol` needs `trusted_proxies`"), "{told}");
}

/// An admin page as text.
async fn admin_text(admin: SocketAddr, path: &str) -> String {
    match admin_get(admin, path).await.unwrap().1 {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}
