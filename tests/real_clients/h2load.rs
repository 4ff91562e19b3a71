//! h2load: thousands of requests over HTTP/2, in the clear and over TLS, to nginx.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::tools::{run, tool};

const REQUESTS: &str = "5000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_over_http2_are_all_answered_well() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), "one");
    std::fs::write(nginx.file("large"), vec![b'x'; 200_000]).unwrap();
    let ground = Ground::new(&[Service::new("web", &[nginx.port])], "").await;
    let load = |scheme: &str, to: SocketAddr, path: &str, more: &[&str]| {
        let mut command = Command::new(tool("h2load"));
        command.args(["-n", REQUESTS, "-c", "20", "-m", "16"]).args(more);
        command.arg(format!("--connect-to=127.0.0.1:{}", to.port()));
        command.arg(format!("{scheme}://web.shop.test:{}{path}", to.port()));
        tokio::task::spawn_blocking(move || run(&mut command, Duration::from_secs(120)))
    };
    let good = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    let in_the_clear = load("http", ground.plain, "/", &[]).await.unwrap();
    assert!(in_the_clear.contains(&good) && in_the_clear.contains("Application protocol: h2c"), "{in_the_clear}");
    let over_tls = load("https", ground.tls, "/name.txt", &[]).await.unwrap();
    assert!(over_tls.contains(&good) && over_tls.contains("Application protocol: h2\n"), "{over_tls}");
    let old = load("https", ground.tls, "/", &["--h1"]).await.unwrap();
    assert!(old.contains(&good) && old.contains("Application protocol: http/1.1"), "{old}");
    let small_windows = load("http", ground.plain, "/large", &["-n", "300", "-w", "14", "-W", "15"]).await.unwrap();
    assert!(small_windows.contains("300 succeeded, 0 failed, 0 errored, 0 timeout"), "{small_windows}");
    for told in [&in_the_clear, &over_tls, &old, &small_windows] {
        assert!(told.contains(" 0 3xx, 0 4xx, 0 5xx"), "{told}");
    }
    assert!(ground.metric("pointsman_h2_streams_total").await >= 10_300.0);
}
