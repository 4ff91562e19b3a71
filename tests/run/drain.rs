//! SIGTERM: not ready at once, still serving for `drain.delay`, what runs is finished, exit 0; a second one hurries.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::binary::Proxy;
use crate::support::load::get;
use crate::support::process::InstanceProcess;
use crate::support::site::{admin_get, ready, replace, until};

const RULES: &str = "service: web\npools: {all: version == 1}\nrules: [{name: all, to: [all]}]\n";

struct Ground {
    _instance: InstanceProcess,
    _folder: tempfile::TempDir,
    proxy: Proxy,
}

async fn ground(delay: &str) -> Ground {
    let instance = InstanceProcess::start("web-1", &["version=1"]);
    let folder = tempfile::tempdir().unwrap();
    let port = instance.addr.port();
    replace(
        &folder.path().join("catalog.yaml"),
        &format!("services: {{web: [{{id: web-1, address: 127.0.0.1, port: {port}, labels: {{version: 1}}}}]}}\n"),
    );
    replace(&folder.path().join("web.yaml"), RULES);
    let config = folder.path().join("pointsman.yaml");
    replace(
        &config,
        &format!(
            "catalog: {{file: {0}/catalog.yaml}}\nrules: {0}/web.yaml\ndrain: {{delay: {delay}, timeout: 10s}}\n",
            folder.path().display()
        ),
    );
    let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
    ready(proxy.admin).await;
    Ground { _instance: instance, _folder: folder, proxy }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_runs_and_refuses_what_is_new_after_the_delay() {
    let Ground { mut proxy, _instance, _folder } = ground("1s").await;
    let to = proxy.listen;
    let slow = tokio::spawn(async move { get(to, "web.test", "/?sleep=3000", &mut None).await });
    until("the slow request is at the instance", async || in_flight(&proxy).await == 1).await;

    let told = Instant::now();
    proxy.signal("TERM");
    let took = until("it is not ready", async || {
        admin_get(proxy.admin, "/ready")
            .await
            .is_ok_and(|(status, body)| status == 503 && body["reasons"][0] == "draining")
    })
    .await;
    assert!(took < Duration::from_millis(900), "within the delay: {took:?}");
    let (status, _) = get(to, "web.test", "/", &mut None).await.expect("new ones are served during the delay");
    assert_eq!(status, 200);
    until("new connections are refused", async || TcpStream::connect(to).await.is_err()).await;
    let refused = told.elapsed();
    assert!(refused > Duration::from_millis(900) && refused < Duration::from_millis(2_900), "{refused:?}");
    assert_eq!(slow.await.unwrap().expect("the slow one is finished").0, 200);
    let status = proxy.wait();
    assert_eq!(status.code(), Some(0), "{}", proxy.log());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_skips_the_delay() {
    let Ground { mut proxy, _instance, _folder } = ground("30s").await;
    let told = Instant::now();
    proxy.signal("TERM");
    until("it is not ready", async || admin_get(proxy.admin, "/ready").await.is_ok_and(|(status, _)| status == 503))
        .await;
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_are_told_to_close_during_the_drain() {
    let Ground { mut proxy, _instance, _folder } = ground("0s").await;
    let mut kept = None;
    assert_eq!(get(proxy.listen, "web.test", "/", &mut kept).await.unwrap().0, 200);
    proxy.signal("TERM");
    let told = Instant::now();
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    assert!(told.elapsed() < Duration::from_secs(3), "an idle kept connection holds nothing up: {:?}", told.elapsed());
}

async fn in_flight(proxy: &Proxy) -> u64 {
    let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
    table["services"][0]["instances"][0]["in_flight"].as_u64().unwrap()
}
