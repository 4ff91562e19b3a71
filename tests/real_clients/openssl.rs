//! `openssl s_client`: the certificate by SNI, ALPN, sessions that are resumed, and what is stapled.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::support::binary::Proxy;
use crate::support::site::{admin_get, ready, until};
use crate::tools::{Background, end_of, run, tool};

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
    // The dot of the root means the same name: the library takes it away, for rules on `tls.sni`, too.
    let rooted = greet(&["-servername", "web.shop.test.", "-verify_hostname", "web.shop.test"]).await.unwrap();
    assert_eq!(shown(&rooted), file("web.pem"), "{rooted}");
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

/// Runs a command of openssl's in a folder, with success.
fn openssl(folder: &Path, arguments: &str) -> String {
    run(Command::new(tool("openssl")).current_dir(folder).args(arguments.split(' ')), Duration::from_secs(30))
}

/// The proxy with one listener of this kind, before these services. `AT`: the folder.
async fn listening(at: &Path, listen: &str, services: &str) -> Proxy {
    let config = format!(
        "listen: [{{address: \"127.0.0.1:0\", {listen}}}]\nadmin: {{address: \"127.0.0.1:0\"}}\ncatalog: {{file: \
         AT/catalog.yaml}}\nrules: AT/rules\n"
    );
    std::fs::create_dir(at.join("rules")).unwrap();
    let rules = "service: web\nhosts: [web.shop.test]\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";
    std::fs::write(at.join("rules/web.yaml"), rules).unwrap();
    std::fs::write(at.join("catalog.yaml"), format!("services: {services}\n")).unwrap();
    std::fs::write(at.join("pointsman.yaml"), config.replace("AT", at.to_str().unwrap())).unwrap();
    let proxy = Proxy::start_with(&["--config", at.join("pointsman.yaml").to_str().unwrap()]);
    ready(proxy.admin).await;
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_we_do_not_speak_ourselves_are_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    openssl(
        at,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout web.key -out web.pem -subj /CN=web -days 9",
    );
    let mut server = Command::new(tool("openssl"));
    server.current_dir(at).args(["s_server", "-accept", "127.0.0.1:0", "-cert", "web.pem", "-key", "web.key", "-www"]);
    let mut server = Background::start({
        server.args(["-cipher", "ALL:@SECLEVEL=0", "-min_protocol", "TLSv1"]);
        server
    });
    let port = loop {
        if let Some(address) = server.line().strip_prefix("ACCEPT ") {
            break address.rsplit(':').next().unwrap().to_owned();
        }
    };
    let services = format!("{{web: [{{id: old, address: 127.0.0.1, port: {port}}}]}}");
    let proxy = listening(at, "tls_passthrough: true", &services).await;
    for version in ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"] {
        let arguments =
            format!("s_client -connect {} -servername web.shop.test -cipher ALL:@SECLEVEL=0 {version}", proxy.listen);
        let told = openssl(at, &arguments);
        assert!(told.contains("BEGIN CERTIFICATE") && !told.contains("Cipher is (NONE)"), "{version}: {told}");
    }
}

/// Has the responder answer for `web.pem` by this index, and puts the answer in its place.
fn respond(folder: &Path, index: &str) {
    std::fs::write(folder.join("index.txt"), index).unwrap();
    openssl(
        folder,
        "ocsp -index index.txt -rsigner ca.pem -rkey ca.key -CA ca.pem -issuer ca.pem -cert web.pem -no_nonce -ndays 1 \
         -noverify -respout new.ocsp",
    );
    std::fs::rename(folder.join("new.ocsp"), folder.join("web.ocsp")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ocsp_response_of_openssl_is_stapled_until_it_says_revoked() {
    const VALID: &str = "V\t20991231235959Z\t\t0ABC\tunknown\t/CN=web.shop.test\n";
    const REVOKED: &str = "R\t20991231235959Z\t260101000000Z,keyCompromise\t0ABC\tunknown\t/CN=web.shop.test\n";
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    openssl(
        at,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9",
    );
    openssl(
        at,
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout web.key -out web.csr -subj /CN=web.shop.test",
    );
    std::fs::write(at.join("web.ext"), "subjectAltName=DNS:web.shop.test\n").unwrap();
    openssl(
        at,
        "x509 -req -in web.csr -CA ca.pem -CAkey ca.key -set_serial 0xabc -days 9 -extfile web.ext -out web.pem",
    );
    let chain = ["web.pem", "ca.pem"].map(|name| std::fs::read_to_string(at.join(name)).unwrap()).concat();
    std::fs::write(at.join("chain.pem"), chain).unwrap();
    respond(at, VALID);
    let proxy =
        listening(at, "tls: {certificates: [{cert: AT/chain.pem, key: AT/web.key, ocsp: AT/web.ocsp}]}", "{}").await;
    let to = proxy.listen.to_string();
    let status = || openssl(at, &format!("s_client -connect {to} -CAfile ca.pem -status -servername web.shop.test"));
    let told = status();
    assert!(told.contains("OCSP Response Status: successful") && told.contains("Cert Status: good"), "{told}");
    let (_, metrics) = admin_get(proxy.admin, "/metrics").await.unwrap();
    let left = metrics.as_str().unwrap().lines().find(|line| line.starts_with("pointsman_tls_ocsp_expiry_seconds{"));
    let left: f64 = left.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((86_000.0..=86_400.0).contains(&left), "{left}");

    respond(at, REVOKED);
    until("the response is dropped", async || status().contains("OCSP response: no response sent")).await;
    until("the log says so", async || {
        proxy.log().lines().any(|line| line.contains("web.ocsp: THE CERTIFICATE IS REVOKED") && line.contains("WARN"))
    })
    .await;
    let (_, metrics) = admin_get(proxy.admin, "/metrics").await.unwrap();
    let none = |line: &str| line.starts_with("pointsman_tls_ocsp_expiry_seconds{") && line.ends_with("} 0.0");
    assert!(metrics.as_str().unwrap().lines().any(none), "{metrics}");
    let (_, shown) = admin_get(proxy.admin, "/v1/certificates").await.unwrap();
    let certificate = &shown["listeners"][0]["certificates"][0];
    assert!(certificate["ocsp_unused"].as_str().unwrap().contains("REVOKED"), "{shown}");
    respond(at, VALID);
    until("a good one is stapled again", async || status().contains("Cert Status: good")).await;
}
