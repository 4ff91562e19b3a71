//! Clients that take everything: more connections than descriptors, and thousands that do nothing.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::site::{Site, ready, until};

const RULES: &str = "service: web\npools: {all: version == 1}\nrules: [{name: all, to: [all]}]\n";

/// The binary with so many descriptors. Killed when dropped.
struct Limited {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Limited {
    fn start(site: &Site, descriptors: u32, limits: &str) -> Self {
        let config = site.catalog().with_file_name("pointsman.yaml");
        std::fs::write(&config, format!("limits: {{{limits}}}\n")).unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_pointsman"))
            .args(["run", "--workers", "2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
            .arg(config)
            .arg("--catalog")
            .arg(site.catalog())
            .arg("--rules")
            .arg(site.rules())
            .env("POINTSMAN_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let line: serde_json::Value = serde_json::from_str(&first).unwrap_or_else(|_| panic!("it starts: {first:?}"));
        let address = |value: &serde_json::Value| value.as_str().unwrap().parse().unwrap();
        Self { listen: address(&line["listen"][0]), admin: address(&line["admin"]), child }
    }

    /// A line of `/proc/PID/status` in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time so far, in hundredths of a second.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// GET on a connection of its own; `None`: no answer.
async fn get(address: SocketAddr, target: &str) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let head = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        (!answer.is_empty()).then_some(answer)
    };
    tokio::time::timeout(Duration::from_secs(5), asking).await.ok()?
}

async fn is_ok(address: SocketAddr, target: &str) -> bool {
    get(address, target).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// This process holds the other ends.
pub fn raise_descriptors() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_descriptor_table_does_not_spin_and_keeps_a_door_for_operators() {
    raise_descriptors();
    let checked = format!("{RULES}check: {{http: /, interval: 100ms, reuse: false, rise: 1, fall: 2}}\n");
    let site = Site::new(&["web-1 version=1"], &checked).await;
    let proxy = Limited::start(&site, 160, "connections: 100000, keep_alive: 5m");
    ready(proxy.admin).await;
    let mut held = Vec::new();
    let mut kept = TcpStream::connect(proxy.listen).await.unwrap();
    assert!(asks_on(&mut kept).await, "before");
    for _ in 0..400 {
        held.push(TcpStream::connect(proxy.listen).await.unwrap());
    }
    let page = async || get(proxy.admin, "/metrics").await.unwrap_or_default();
    let full = |line: &str| line.contains("\"system\"");
    until("the table is full", async || sum(&page().await, "pointsman_accept_errors_total{", full) > 0.0).await;
    // There is no descriptor for a check either, which says nothing about the instance.
    let unmade = |line: &str| line.contains("\"unmade\"");
    until("checks are not made", async || sum(&page().await, "pointsman_checks_total{", unmade) >= 5.0).await;
    let failed = |line: &str| !unmade(line) && !line.contains("\"passed\"");
    assert_eq!(sum(&page().await, "pointsman_checks_total{", failed), 0.0);
    for turn in 0..20 {
        assert!(is_ok(proxy.admin, "/live").await, "operators get in, {turn}");
    }
    let (before, since) = (proxy.ticks(), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let share = (proxy.ticks() - before) as f64 / (since.elapsed().as_secs_f64() * 100.0);
    assert!(share < 0.3, "it spins: {:.0} % of a core", share * 100.0);
    assert!(asks_on(&mut kept).await, "who is connected is served");
    held.clear();
    until("new clients are served again", async || is_ok(proxy.listen, "/").await).await;
}

/// The sum of a family's values, of those lines.
fn sum(page: &str, family: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(family) && wanted(line));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn asks_on(stream: &mut TcpStream) -> bool {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 16 * 1024];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
    matches!(read, Ok(Ok(n)) if answer[..n].starts_with(b"HTTP/1.1 200"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_idle_connections_cost_little_and_nobody_waits_for_them() {
    const IDLE: usize = 3_000;
    raise_descriptors();
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let proxy = Limited::start(&site, 8_192, "connections: 8000, keep_alive: 5m");
    ready(proxy.admin).await;
    for _ in 0..50 {
        assert!(is_ok(proxy.listen, "/").await);
    }
    let before = proxy.resident();
    let mut held = Vec::new();
    for _ in 0..IDLE {
        held.push(TcpStream::connect(proxy.listen).await.unwrap());
    }
    let page = async || get(proxy.admin, "/metrics").await.unwrap_or_default();
    let open = async || sum(&page().await, "pointsman_connections{", |_| true);
    until("all are accepted", async || open().await >= IDLE as f64).await;
    for _ in 0..50 {
        let asked = Instant::now();
        assert!(is_ok(proxy.listen, "/").await);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    // What accepting them took is given back within a few seconds.
    until("an idle connection holds at most 10 KiB", async || {
        let each = proxy.resident().saturating_sub(before) * 1_024 / IDLE as u64;
        println!("{each} bytes an idle connection");
        each <= 10 * 1_024
    })
    .await;
}
