//! curl: HTTP/1.1 and HTTP/2, in the clear and over TLS 1.2 and 1.3, with a client certificate.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::tools::{end_of, run, tool};

/// `curl ARGS… SCHEME://HOST.test:PORT/PATH`, with the host's name led to the listener.
pub fn curl(url: &str, to: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(tool("curl"));
    let (scheme, rest) = url.split_once("://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "170"]);
    command.args(["--resolve", &format!("{host}:{}:127.0.0.1", to.port())]).args(args);
    command.arg(format!("{scheme}://{host}:{}/{path}", to.port()));
    command
}

const LONG: Duration = Duration::from_secs(30);
/// The version of HTTP, the status, and what was answered.
const SHOWN: [&str; 2] = ["--write-out", " %{http_version} %{http_code}"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_http_is_spoken_in_the_clear_and_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), "one");
    let ground = Ground::new(&[Service::new("web", &[nginx.port])], "").await;
    let ca = ground.at("ca.pem");
    let trusted = ["--cacert", ca.to_str().unwrap()];
    let ask = |url: &str, to: SocketAddr, more: &[&str]| {
        let mut command = curl(url, to, &[&SHOWN, more].concat());
        tokio::task::spawn_blocking(move || run(&mut command, LONG))
    };
    let in_the_clear: [(&[&str], &str); 3] =
        [(&["--http1.1"], "1.1"), (&["--http1.0"], "1"), (&["--http2-prior-knowledge"], "2")];
    for (args, version) in in_the_clear {
        assert_eq!(
            ask("http://web.shop.test/", ground.plain, args).await.unwrap(),
            format!("one {version} 200"),
            "{args:?}"
        );
    }
    let over_tls: [(&[&str], &str); 6] = [
        (&[], "2"),
        (&["--http1.1"], "1.1"),
        (&["--http2", "--tlsv1.3"], "2"),
        (&["--http2", "--tls-max", "1.2"], "2"),
        (&["--http1.1", "--tls-max", "1.2"], "1.1"),
        (&["--no-alpn"], "1.1"),
    ];
    for (args, version) in over_tls {
        let told = ask("https://web.shop.test/", ground.tls, &[&trusted, args].concat()).await.unwrap();
        assert_eq!(told, format!("one {version} 200"), "{args:?}");
    }
    // An upgrade to h2c is not followed; the request is answered all the same.
    assert_eq!(ask("http://web.shop.test/", ground.plain, &["--http2"]).await.unwrap(), "one 1.1 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_wanted_and_its_name_can_be_routed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, others) = (Nginx::start(folder.path(), "alice"), Nginx::start(folder.path(), "others"));
    let route = "pools: {all: id == \"web-OTHERS\", hers: id == \"web-ALICE\"}\nrules:\n  \
                 - {name: alice, when: 'tls.client.san contains \"alice.clients.test\"', to: [hers]}\n  \
                 - {name: all, to: [all]}"
        .replace("OTHERS", &others.port.to_string())
        .replace("ALICE", &alice.port.to_string());
    let ports = [others.port, alice.port];
    let ground = Ground::new(&[Service { route: &route, ..Service::new("web", &ports) }], "").await;
    let at = |name: &str| ground.at(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (at("ca.pem"), at("alice.pem"), at("alice.key"));
    for version in ["--http1.1", "--http2"] {
        let mut open = curl("https://web.shop.test/", ground.tls, &["--cacert", &ca, version]);
        assert_eq!(tokio::task::spawn_blocking(move || run(&mut open, LONG)).await.unwrap(), "others");
        let args = [&SHOWN[..], &["--cacert", &ca, "--cert", &cert, "--key", &key, version]].concat();
        let mut with = curl("https://web.shop.test/", ground.mutual, &args);
        let told = tokio::task::spawn_blocking(move || run(&mut with, LONG)).await.unwrap();
        assert!(told.starts_with("alice ") && told.ends_with(" 200"), "{told}");
        let mut without = curl("https://web.shop.test/", ground.mutual, &["--cacert", &ca, version]);
        let refused = tokio::task::spawn_blocking(move || end_of(&mut without, LONG)).await.unwrap();
        // With TLS 1.3 curl has sent its request before it reads that it is refused; it is told why all the same.
        assert!(matches!(refused.status.code(), Some(16 | 35 | 55 | 56)) && refused.stdout.is_empty(), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr).to_lowercase();
        assert!(told.contains("certificate required"), "{told}");
    }
}
