//! A TLS listener of the built binary: certificates that change on disk, what operators see, what is refused at start.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::front::{Authority, Identity};
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

/// How often the certificate changes.
const ROTATIONS: usize = 100;

/// A client that asks until it is told to stop.
#[derive(Clone, Copy)]
enum Load {
    /// On one connection of HTTP/1.1.
    Kept,
    /// On a connection, with a handshake, of its own each.
    Fresh,
    /// On one connection of HTTP/2, replaced now and then.
    Http2,
}

impl Load {
    /// How many answers it got, all of them good.
    async fn run(self, config: Arc<ClientConfig>, to: SocketAddr, stop: Arc<AtomicBool>) -> usize {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            asked += match self {
                Self::Kept => kept(&config, to, &stop).await,
                Self::Fresh => {
                    let (answer, _) = get(&config, to).await.expect("a handshake and an answer");
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    1
                }
                Self::Http2 => over_http2(&config, to, 50).await,
            };
        }
        asked
    }
}

async fn connect(config: Arc<ClientConfig>, to: SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("web.test").unwrap();
    TlsConnector::from(config).connect(name, stream).await.expect("a handshake")
}

/// Requests on one connection, to the end.
async fn kept(config: &Arc<ClientConfig>, to: SocketAddr, stop: &AtomicBool) -> usize {
    let mut stream = BufReader::new(connect(Arc::clone(config), to).await);
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await.expect("a request");
        let (mut line, mut length) = (String::new(), 0);
        stream.read_line(&mut line).await.expect("an answer");
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.expect("a field");
            let declared = line.to_ascii_lowercase().strip_prefix("content-length:").map(|text| text.trim().parse());
            length = declared.map_or(length, |declared| declared.unwrap());
        }
        stream.read_exact(&mut vec![0; length]).await.expect("a body");
        asked += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    asked
}

/// So many requests on one connection.
async fn over_http2(config: &Arc<ClientConfig>, to: SocketAddr, most: usize) -> usize {
    let mut config = (**config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (mut sender, connection) = h2::client::handshake(connect(Arc::new(config), to).await).await.unwrap();
    let driving = tokio::spawn(connection);
    for _ in 0..most {
        sender = sender.ready().await.expect("a stream");
        let request = http::Request::get("https://web.test/").body(()).unwrap();
        let answer = sender.send_request(request, true).unwrap().0.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    driving.abort();
    most
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
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = [Load::Kept, Load::Kept, Load::Fresh, Load::Fresh, Load::Http2]
        .map(|load| tokio::spawn(load.run(Arc::clone(&client), proxy.listen, Arc::clone(&stop))))
        .into();
    for turn in 0..ROTATIONS {
        let next = authority.issue("web.test");
        replace(&key, &next.key);
        replace(&cert, &next.cert);
        let next = CertificateDer::from_pem_slice(next.cert.as_bytes()).unwrap();
        // Every answer on the way is a good one.
        until(&format!("certificate {turn} is shown"), async || {
            let (answer, shown) = get(&client, proxy.listen).await.expect("no request fails");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            shown == *next
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let asked = load.await.expect("no request failed");
        assert!(asked > ROTATIONS, "it went on all the time: {asked}");
    }
    // The last one is shown before it is counted.
    until("every rotation is counted", async || reloads(proxy.admin, "ok").await >= ROTATIONS as u64).await;
    // Were this process held up between the two files, that would be told of, and mended by the second one.
    assert!(reloads(proxy.admin, "failed").await < 5);
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

/// The same, showing a certificate.
fn client_with(authority: &Authority, identity: &Identity) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let builder = builder.with_root_certificates(authority.roots());
    let mut config = builder.with_client_auth_cert(vec![cert], key).unwrap();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// How often certificates were read again, with this result.
async fn reloads(admin: SocketAddr, result: &str) -> u64 {
    let series = format!("pointsman_reload_total{{what=\"certificates\",result=\"{result}\"}} ");
    let page = admin_text(admin, "/metrics").await;
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_of_client_authorities_keeps_the_old_ones_and_sighup_reads_it_again() {
    let site = Site::new(&["web-1 version=1.2"], RULES).await;
    let (servers, clients, others) = (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let (cert, key, ca) = (site.path("cert.pem"), site.path("key.pem"), site.path("clients.pem"));
    servers.issue("web.test").write(&cert, &key);
    clients.write(&ca);
    let text = format!(
        "listen: [{{address: 127.0.0.1:0, tls: {{cert: {}, key: {}, client: {{ca: {}}}}}}}]\nadmin: {{address: 127.0.0.1:0}}\n",
        cert.display(),
        key.display(),
        ca.display()
    );
    std::fs::write(site.path("pointsman.yaml"), text).unwrap();
    let (config, catalog, rules) = (site.path("pointsman.yaml"), site.catalog(), site.rules());
    let paths = [&config, &catalog, &rules].map(|path| path.to_str().unwrap());
    let proxy = Proxy::start_with(&["--config", paths[0], "--catalog", paths[1], "--rules", paths[2]]);
    ready(proxy.admin).await;
    let (ours, theirs) = (clients.issue("alice.test"), others.issue("mallory.test"));
    let (ours, theirs) = (client_with(&servers, &ours), client_with(&servers, &theirs));
    let admitted = async |config: &Arc<ClientConfig>| {
        get(config, proxy.listen).await.is_ok_and(|(answer, _)| answer.starts_with("HTTP/1.1 200 "))
    };
    assert!(admitted(&ours).await && !admitted(&theirs).await && !admitted(&client(&servers)).await);
    // A connection that is there already is touched by none of what follows.
    let stop = Arc::new(AtomicBool::new(false));
    let (held, told, to) = (Arc::clone(&ours), Arc::clone(&stop), proxy.listen);
    let asking = tokio::spawn(async move { kept(&held, to, &told).await });

    replace(&ca, "nobody");
    until("the broken file is counted", async || reloads(proxy.admin, "failed").await > 0).await;
    until("the log names it", async || proxy.log().contains("clients.pem")).await;
    assert!(admitted(&ours).await && !admitted(&theirs).await, "what was in force stays");

    let before = reloads(proxy.admin, "failed").await;
    proxy.signal("HUP");
    until("SIGHUP has read it again", async || reloads(proxy.admin, "failed").await > before).await;
    assert!(admitted(&ours).await && !admitted(&theirs).await);

    let next = site.path("next.pem");
    others.write(&next);
    replace(&ca, &std::fs::read_to_string(&next).unwrap());
    until("the others are admitted", async || admitted(&theirs).await).await;
    assert!(!admitted(&ours).await, "the old authority's word counts no more");
    let before = reloads(proxy.admin, "ok").await;
    proxy.signal("HUP");
    until("SIGHUP is answered where nothing changed", async || reloads(proxy.admin, "ok").await > before).await;
    assert!(admitted(&theirs).await);
    assert!(!asking.is_finished(), "it asks on");
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
}

#[tokio::test]
async fn instances_that_anybody_may_pose_as_are_told_of_at_start() {
    let site = Site::new(&["web-1 version=1.2"], &format!("upstream: {{tls: {{verify: false}}}}\n{RULES}")).await;
    let proxy = site.proxy(&[]).await;
    let told = "service=web";
    until("the log says so", async || {
        proxy
            .log()
            .lines()
            .any(|line| line.contains("WARN") && line.contains("`upstream.tls.verify` is false") && line.contains(told))
    })
    .await;
    assert!(admin_text(proxy.admin, "/metrics").await.contains("pointsman_upstream_unverified{service=\"web\"} 1"));
    let (status, said) = admin_get(proxy.admin, "/ready").await.unwrap();
    let note = "service web: `upstream.tls.verify` is false: whoever answers at an instance's address is believed";
    assert_eq!((status, &said["ready"], &said["degraded"]), (200, &true.into(), &false.into()), "{said}");
    assert_eq!((&said["reasons"], &said["notes"]), (&serde_json::json!([]), &serde_json::json!([note])));
    site.write_rules(RULES);
    until("nothing is noted any more", async || {
        admin_get(proxy.admin, "/ready").await.is_ok_and(|(_, said)| said.get("notes").is_none())
    })
    .await;
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
                - {address: 127.0.0.1:0, proxy_protocol: true}\n  - {address: 127.0.0.1:0, tcp: {host: a b}}\n";
    std::fs::write(&config, text).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["run", "--admin", "off", "--config", config.to_str().unwrap()])
        .args(["--catalog", catalog.to_str().unwrap(), "--rules", rules.to_str().unwrap()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    for reason in ["missing.pem", "`proxy_protocol` needs `trusted_proxies`", "`tcp: {host: a b}` is no host"] {
        assert!(told.contains(reason), "{reason}: {told}");
    }
}

/// An admin page as text.
async fn admin_text(admin: SocketAddr, path: &str) -> String {
    match admin_get(admin, path).await.unwrap().1 {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}
