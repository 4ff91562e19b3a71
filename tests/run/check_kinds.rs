//! What checks ask, end to end: each way of asking against instances that pass it and that do not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::front::{Authority, Front, Tls};
use crate::support::binary::Proxy;
use crate::support::site::{Site, events, instance, replace, until};

/// Listens as an instance that answers by what it is asked: HTTP by path, method and Host, and a protocol of lines.
struct Answering {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Answering {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        Self { addr, task }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut asked, mut piece) = (String::new(), [0u8; 1_024]);
    while !asked.contains("\r\n") || asked.contains("HTTP/1.1") && !asked.contains("\r\n\r\n") {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => asked.push_str(&String::from_utf8_lossy(&piece[..read])),
        }
    }
    let line = asked.lines().next().unwrap_or_default();
    let has_host = asked.to_ascii_lowercase().contains("\r\nhost: web.internal\r\n");
    let (status, body) = match line.trim_end_matches(" HTTP/1.1") {
        "PING" => return stream.write_all(b"+PONG\r\n").await,
        "GET /health" => ("200 OK", "status: up"),
        "GET /named" if has_host => ("200 OK", ""),
        "POST /posted" => ("204 No Content", ""),
        "GET /sick" => ("503 Service Unavailable", ""),
        _ => ("404 Not Found", ""),
    };
    let length = body.len();
    let fields = format!("x-service: web\r\ncontent-length: {length}\r\nconnection: close");
    stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}").as_bytes()).await
}

fn rules(upstream: &str, check: &str) -> String {
    let often = "interval: 100ms, timeout: 5s, rise: 1, fall: 1";
    format!(
        "service: web\npools: {{all: id exists}}\nrules: [{{name: all, to: [all]}}]\n{upstream}\ncheck: {{{check}, {often}}}\n"
    )
}

fn one_instance(addr: SocketAddr, labels: &str) -> String {
    let port = addr.port();
    format!(
        "services:\n  web:\n    - {{id: web-1, address: 127.0.0.1, port: {port}, labels: {{version: \"1.2\"{labels}}}}}\n"
    )
}

/// Waits until the instance's check says this: `None` that it passes, else why it fails.
async fn comes_to(proxy: &Proxy, check: &str, why: Option<&str>) {
    until(&format!("{check} comes to {why:?}"), async || {
        let shown = instance(proxy.admin, "web", "web-1").await;
        match why {
            None => shown["check"] == "passing",
            Some(why) => shown["check"] == "failing" && shown["check_failure"] == why,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_header_body_method_host_and_text_are_judged() {
    let behind = Answering::start().await;
    let header = Some("a header is not as expected");
    let text = Some("the expected text did not come");
    // Each one turns the verdict of the one before.
    let steps = [
        ("http: /health", None),
        ("http: /sick", Some("status 503")),
        ("http: /sick, expect: {status: [503]}", None),
        ("http: /health, expect: {status: [204-299, 301]}", Some("status 200")),
        ("http: /health, expect: {header: {x-service: web}}", None),
        ("http: /health, expect: {header: {x-service: api}}", header),
        ("http: /health, expect: {body: up}", None),
        ("http: /health, expect: {body: down}", text),
        ("http: {path: /named, host: web.internal}", None),
        ("http: /named", Some("status 404")),
        ("http: {path: /posted, method: POST}", None),
        ("http: /posted", Some("status 404")),
        ("tcp: {send: \"PING\\r\\n\", expect: \"+PONG\"}", None),
        ("tcp: {send: \"PING\\r\\n\", expect: \"+OK\"}", text),
        ("tcp: true", None),
        ("http: /health, expect: {tls_name: web.test}", Some("its certificate is not for the expected name")),
    ];
    let site = Site::new(&[], &rules("", steps[0].0)).await;
    replace(&site.catalog(), &one_instance(behind.addr, ""));
    let proxy = site.proxy(&[]).await;
    for (check, why) in steps {
        site.write_rules(&rules("", check));
        comes_to(&proxy, check, why).await;
    }
    let told = events(proxy.admin, "check_failing", "web-1").await;
    assert!(told.iter().any(|event| event["reason"] == "1 active checks in a row failed: status 503"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_follow_the_tls_of_requests_and_tell_whose_certificate_it_is() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let behind = Answering::start().await;
    let identity = authority.issue("web.test");
    let front = Front::tls(behind.addr, Tls { identity: &identity, clients: None, h2: false }).await;
    let site = Site::new(&[], &rules("", "tcp: true")).await;
    let (ca, other) = (site.path("ca.pem"), site.path("other.pem"));
    authority.write(&ca);
    stranger.write(&other);
    let addr = front.url().rsplit('/').next().unwrap().parse().unwrap();
    replace(&site.catalog(), &one_instance(addr, ", host: web.test, scheme: https"));
    let proxy = site.proxy(&[]).await;
    let tls = |keys: &str| {
        let keys = keys.replace("CA", ca.to_str().unwrap()).replace("OTHER", other.to_str().unwrap());
        format!("upstream: {{tls: {keys}}}")
    };
    let (handshake, name) = (Some("the TLS handshake failed"), Some("its certificate is not for the expected name"));
    let http = "http: /health, expect: {body: up}";
    for (upstream, check, why) in [
        ("{ca: CA, name: web.test}", http, None),
        ("{ca: CA, name: api.test}", http, handshake),
        ("{ca: CA, name_label: host}", http, None),
        ("{ca: OTHER, name: web.test}", http, handshake),
        ("{verify: false}", http, None),
        // Somebody else's service at this address: the certificate is believed, and is not for the name.
        ("{verify: false}", "http: /health, expect: {tls_name: api.test}", name),
        ("{verify: false}", "http: /health, expect: {tls_name: web.test, body: up}", None),
        ("{ca: CA, name: web.test}", "tcp: true, expect: {tls_name: web}", name),
        ("{verify: false}", "http: /health, expect: {tls_name: \"{service}.test\"}", None),
        ("{verify: false}", "http: /health, expect: {tls_name: \"{service}.internal\"}", name),
        ("{verify: false}", "http: /health, expect: {tls_name: \"{label.host}\"}", None),
        ("{verify: false}", "http: /health, expect: {tls_name: \"{label.rack}.test\"}", name),
        ("{ca: CA, name: web.test}", "tcp: {send: \"PING\\r\\n\", expect: \"+PONG\"}", None),
        (
            "{ca: CA, name: web.test}",
            "tcp: {send: \"PING\\r\\n\", expect: \"+OK\"}",
            Some("the expected text did not come"),
        ),
    ] {
        site.write_rules(&rules(&tls(upstream), check));
        comes_to(&proxy, &format!("{upstream}, {check}"), why).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_run_for_each_instance_where_that_is_allowed() {
    let site = Site::new(&["web-1 version=1.2"], "").await;
    let port = site.instances["web-1"].addr.port();
    let flag = site.path(&format!("{port}.up"));
    std::fs::write(&flag, "").unwrap();
    let folder = flag.parent().unwrap().to_str().unwrap();
    let script = "echo asked for $POINTSMAN_INSTANCE at $1; test -e $0/$1.up";
    let command = format!("command: [/bin/sh, -c, \"{script}\", {folder}, \"{{port}}\"]");
    site.write_rules(&rules("", &command));
    let config = site.path("pointsman.yaml");
    std::fs::write(&config, "checks: {allow_commands: true}\n").unwrap();
    let proxy = site.proxy(&["--config", config.to_str().unwrap()]).await;
    comes_to(&proxy, "it", None).await;
    std::fs::remove_file(&flag).unwrap();
    comes_to(&proxy, "it", Some("the command ended with 1")).await;
    assert_eq!(instance(proxy.admin, "web", "web-1").await["available"], false);
    std::fs::write(&flag, "").unwrap();
    comes_to(&proxy, "it", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_not_allowed_is_refused_at_the_start_and_at_a_reload() {
    let command = rules("", "command: [/bin/true]");
    let site = Site::new(&["web-1 version=1.2"], &command).await;
    let (catalog, written) = (site.catalog(), site.rules());
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--catalog"];
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("run")
        .args(flags)
        .args([&catalog, &std::path::PathBuf::from("--rules"), &written])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("error[E904]"), "{told}");

    site.write_rules(&rules("", "tcp: true"));
    let proxy = site.proxy(&[]).await;
    comes_to(&proxy, "the open connection", None).await;
    site.write_rules(&command);
    until("the reload is refused", async || proxy.log().contains("E904")).await;
    assert_eq!(instance(proxy.admin, "web", "web-1").await["check"], "passing", "the check before is in force");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hold_new_keeps_an_instance_out_until_it_passed_once_also_by_the_file_for_every_service() {
    let own = rules("", "http: /health, hold_new: true");
    let stars = own.replace("service: web", "service: \"*\"\nhosts: [\"{service}.test\"]");
    for text in [own, stars] {
        let site = Site::new(&[], &text).await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = silent.local_addr().unwrap();
        replace(&site.catalog(), &one_instance(addr, ""));
        let proxy = site.proxy(&[]).await;
        let shown = instance(proxy.admin, "web", "web-1").await;
        assert_eq!((&shown["check"], &shown["available"]), (&"unknown".into(), &false.into()), "{text}: {shown}");
        let (status, _) = crate::support::load::get(proxy.listen, "web.test", "/", &mut None).await.unwrap();
        assert_eq!(status, 503, "{text}");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = silent.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        let ask = async || crate::support::load::get(proxy.listen, "web.test", "/health", &mut None).await.unwrap().0;
        until("it passed and is asked", async || ask().await == 200).await;
        assert_eq!(instance(proxy.admin, "web", "web-1").await["available"], true, "{text}");
        accepting.abort();
    }
}
