//! `openssl s_client`: the certificate by SNI, ALPN, and sessions that are resumed.

use std::process::Command;
use std::time::Duration;

use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::tools::{end_of, tool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_by_name_protocols_and_resumption() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), "one");
    let ground = Ground::new(&[Service::new("web", &[nginx.port])], "").await;
    let (to, ca) = (ground.tls.to_string(), ground.at("ca.pem"));
    let greet = |args: &[&str]| {
        let mut command = Command::new(tool("openssl"));
        command.args(["s_client", "-connect", &to, "-verify_return_error", "-CAfile", ca.to_str().unwrap()]).args(args);
        tokio::task::spawn_blocking(move || {
            let output = end_of(&mut command, Duration::from_secs(30));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    let web = greet(&["-servername", "web.shop.test", "-verify_hostname", "web.shop.test"]).await.unwrap();
    assert!(web.contains("Verify return code: 0 (ok)") && web.contains("New, TLSv1.3"), "{web}");
    let shown = |told: &str| {
        let pem = told.split("-----BEGIN CERTIFICATE-----").nth(1).and_then(|rest| rest.split("-----END").next());
        pem.unwrap_or_default().split_whitespace().collect::<String>()
    };
    let file = |name: &str| shown(&std::fs::read_to_string(ground.at(name)).unwrap());
    assert_eq!(shown(&web), file("web.pem"), "the exact name comes before the wildcard");
    let other = greet(&["-servername", "api.shop.test", "-verify_hostname", "api.shop.test"]).await.unwrap();
    assert_eq!(shown(&other), file("any.pem"));
    assert!(other.contains("Verify return code: 0 (ok)"), "{other}");
    let strange = greet(&["-servername", "api.shop.test", "-verify_hostname", "other.example"]).await.unwrap();
    assert!(!strange.contains("Verify return code: 0 (ok)"), "{strange}");

    for (offered, agreed) in [("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")] {
        let told = greet(&["-servername", "web.shop.test", "-alpn", offered]).await.unwrap();
        assert!(told.contains(&format!("ALPN protocol: {agreed}\n")), "{offered}: {told}");
    }
    let none = greet(&["-servername", "web.shop.test", "-alpn", "smtp"]).await.unwrap();
    assert!(none.contains("no peer certificate available") && !none.contains("ALPN protocol:"), "{none}");

    let resumed = greet(&["-servername", "web.shop.test", "-tls1_2", "-reconnect"]).await.unwrap();
    let count = |what: &str| resumed.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("New, TLSv1.2"), count("Reused, TLSv1.2")), (1, 5), "{resumed}");
    let old = greet(&["-servername", "web.shop.test", "-tls1_1"]).await.unwrap();
    assert!(old.contains("no peer certificate available"), "{old}");
}
