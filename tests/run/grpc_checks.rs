//! gRPC health checks against a real server: grpcio with its health service, from scripts/python.sh.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::front::{Authority, Front, Tls};
use crate::support::binary::Proxy;
use crate::support::site::{Site, events, instance, replace, until};

/// A running tests/python/health_server.py; it ends with its standard input.
struct HealthServer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl HealthServer {
    fn start(more: &[&str]) -> Self {
        let python = std::env::var("PYTHON_FOR_TESTS")
            .expect("PYTHON_FOR_TESTS names a Python with grpcio: export PYTHON_FOR_TESTS=$(scripts/python.sh)");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/health_server.py");
        let mut child = Command::new(python)
            .arg(script)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, input, output, port: 0 };
        server.port = server.line().parse().expect("its port");
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line of the server");
        line.trim().to_owned()
    }

    /// `-`: the server as a whole.
    fn set(&mut self, service: &str, status: &str) {
        writeln!(self.input, "{service} {status}").unwrap();
        assert_eq!(self.line(), "ok");
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rules(check: &str) -> String {
    format!(
        "service: web\npools: {{all: version == 1.2}}\nrules: [{{name: all, to: [all]}}]\n\
         check: {{grpc: {check}, interval: 200ms, timeout: 5s, rise: 1, fall: 2}}\n"
    )
}

async fn proxy(site: &Site, server: &HealthServer) -> Proxy {
    let catalog = format!(
        "services:\n  web:\n    - {{id: web-1, address: 127.0.0.1, port: {}, labels: {{version: \"1.2\"}}}}\n",
        server.port
    );
    replace(&site.catalog(), &catalog);
    site.proxy(&[]).await
}

async fn checked(proxy: &Proxy, verdict: &str) {
    until(verdict, async || instance(proxy.admin, "web", "web-1").await["check"] == verdict).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_health_server_is_followed_as_a_whole_and_by_service() {
    let mut server = HealthServer::start(&[]);
    server.set("-", "SERVING");
    server.set("shop.v1.Cart", "NOT_SERVING");
    let site = Site::new(&[], &rules("true")).await;
    let proxy = proxy(&site, &server).await;
    checked(&proxy, "passing").await;

    server.set("-", "NOT_SERVING");
    checked(&proxy, "failing").await;
    until("it is told", async || !events(proxy.admin, "check_failing", "web-1").await.is_empty()).await;
    let told = events(proxy.admin, "check_failing", "web-1").await;
    assert_eq!(told[0]["reason"], "2 active checks in a row failed: it says NOT_SERVING");
    let shown = instance(proxy.admin, "web", "web-1").await;
    assert_eq!((&shown["available"], &shown["check_failure"]), (&false.into(), &"it says NOT_SERVING".into()));
    server.set("-", "SERVING");
    checked(&proxy, "passing").await;

    site.write_rules(&rules("{service: shop.v1.Cart, authority: cart.internal}"));
    checked(&proxy, "failing").await;
    server.set("shop.v1.Cart", "SERVING");
    checked(&proxy, "passing").await;

    site.write_rules(&rules("no.such.Service"));
    checked(&proxy, "failing").await;
    let why = instance(proxy.admin, "web", "web-1").await["check_failure"].clone();
    assert_eq!(why, "its gRPC health service does not know the service asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_health_service_fails_and_explain_says_so() {
    let server = HealthServer::start(&["--without-health"]);
    let site = Site::new(&[], &rules("true")).await;
    let proxy = proxy(&site, &server).await;
    checked(&proxy, "failing").await;
    let asked = r#"{"method": "GET", "host": "web.test", "path": "/"}"#;
    let (status, told) = crate::support::site::admin_post(proxy.admin, "/v1/explain", asked).await;
    let why = &told["pools"][0]["left_out"][0]["why"];
    assert_eq!((status, why), (200, &"its check fails: it has no gRPC health service".into()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_check_through_tls_tells_whose_certificate_it_is() {
    let mut server = HealthServer::start(&[]);
    server.set("-", "SERVING");
    let identity = Authority::new("ours").issue("web.test");
    let behind = ([127, 0, 0, 1], server.port).into();
    let front = Front::tls_alone(behind, Tls { identity: &identity, clients: None, h2: true }).await;
    let port: u16 = front.url().rsplit(':').next().unwrap().parse().unwrap();
    let rules = |name: &str| {
        format!("{}upstream: {{tls: {{verify: false}}}}\n", rules(&format!("true, expect: {{tls_name: \"{name}\"}}")))
    };
    let site = Site::new(&[], &rules("{service}.test")).await;
    let instance_at = format!(
        "services:\n  web:\n    - {{id: web-1, address: 127.0.0.1, port: {port}, labels: {{version: \"1.2\"}}}}\n"
    );
    replace(&site.catalog(), &instance_at);
    let proxy = site.proxy(&[]).await;
    checked(&proxy, "passing").await;
    // The connection that is open shows a certificate for the other name: it is asked on another one.
    site.write_rules(&rules("api.test"));
    checked(&proxy, "failing").await;
    let why = instance(proxy.admin, "web", "web-1").await["check_failure"].clone();
    assert_eq!(why, "its certificate is not for the expected name");
}
