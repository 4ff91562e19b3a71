//! Limits of the running proxy: what `explain` says of them, and that memory stays bounded.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::binary::Proxy;
use crate::support::load::get;
use crate::support::scripted_instance::{ScriptedInstance, catalog};
use crate::support::site::{Site, admin_post, ready, replace, until};

const RULES: &str = "service: web
pools: {all: version == \"1.2\"}
overload: {instance: 1, queue: 4, wait: 8s, service: 10}
rules: [{name: all, to: [all], limit: {rate: 10/h, burst: 5, concurrency: 3}}]
";

async fn limits(proxy: &Proxy) -> Value {
    let line = r#"{"method":"GET","host":"web.test","path":"/","headers":{},"client":"127.0.0.1"}"#;
    let (status, said) = admin_post(proxy.admin, "/v1/explain", line).await;
    assert_eq!(status, 200, "{said}");
    said["policies"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_what_is_left_of_the_limits() {
    let site = Site::new(&[], RULES).await;
    let instance = ScriptedInstance::start("web-1").await;
    replace(&site.catalog(), &catalog(&[("web-1", &instance)]));
    let proxy = site.proxy(&["--workers", "2"]).await;
    get(proxy.listen, "web.test", "/", &mut None).await.unwrap();
    let said = limits(&proxy).await;
    assert_eq!((&said["limit"]["left"], &said["limit"]["held"]), (&4.into(), &0.into()), "{said}");
    assert_eq!(
        (&said["waiting"], &said["service"][0], &said["service"][1]),
        (&0.into(), &0.into(), &10.into()),
        "{said}"
    );
    assert!(said["budget_left"].as_u64().is_some_and(|left| left >= 50), "{said}");
    assert!(said["memory"][1].as_u64().is_some_and(|limit| limit > 1 << 20), "{said}");

    instance.answers(200, 5_000);
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let to = proxy.listen;
            tokio::spawn(async move { get(to, "web.test", "/", &mut None).await })
        })
        .collect();
    until("one goes on, one waits", async || limits(&proxy).await["waiting"] == 1).await;
    let said = limits(&proxy).await;
    assert_eq!(
        (&said["limit"]["left"], &said["limit"]["held"], &said["service"][0]),
        (&2.into(), &2.into(), &2.into()),
        "{said}"
    );

    let text = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["explain", "--admin", &proxy.admin.to_string(), "GET", "http://web.test/"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for words in ["(2 left)", "3 going on (2 now)", "(4 wait at most 8000ms; 1 now)", "(2 of 10 now)", "retries left"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    drop(slow);
    site.write_rules(&RULES.replace("burst: 5, concurrency: 3", "burst: 9, concurrency: 7"));
    until("another limit begins anew", async || limits(&proxy).await["limit"]["left"] == 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_what_is_left_for_the_key_of_the_request_and_takes_nothing() {
    let rules = RULES.replace("burst: 5, concurrency: 3", "burst: 5, key: header.x-user");
    let site = Site::new(&["web-1 version=1.2"], &rules).await;
    let proxy = site.proxy(&[]).await;
    let explain = async |user: &str| {
        let url = "http://web.test/";
        let admin = proxy.admin.to_string();
        let arguments =
            ["explain", "--admin", &admin, "--format", "json", "GET", url, "-H", &format!("x-user: {user}")];
        let told = Command::new(env!("CARGO_BIN_EXE_pointsman")).args(arguments).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        told["policies"]["limit"]["left"].clone()
    };
    for user in ["ann", "ben"] {
        assert_eq!(explain(user).await, 5, "nobody has asked yet");
    }
    for left in [4, 3] {
        let request = http::Request::get("/").header("host", "web.test").header("x-user", "ann");
        let request = request.body(http_body_util::Full::default()).unwrap();
        assert_eq!(crate::support::load::send(proxy.listen, request, &mut None).await.unwrap().status(), 200);
        assert_eq!((explain("ann").await, explain("ann").await), (left.into(), left.into()));
    }
    assert_eq!(explain("ben").await, 5, "others have their own");
}

/// An instance whose `/big` never ends.
async fn endless() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        if !read.starts_with(b"GET /big") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshort").await;
            read.clear();
            continue;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        return;
    }
}

async fn ask_and_do_not_read(to: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let _ = stream.write_all(b"GET /big HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
    stream
}

/// KiB of memory that the process has.
pub fn resident(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_64_mib_a_thousand_slow_readers_leave_good_clients_served_and_memory_bounded() {
    let site = Site::new(&[], "service: web\npools: {all: version == 1}\nrules: [{name: all, to: [all]}]\n").await;
    let address = endless().await;
    let text = format!(
        "services:\n  web:\n    - {{id: web-1, address: {}, port: {}, labels: {{version: \"1\"}}}}\n",
        address.ip(),
        address.port()
    );
    replace(&site.catalog(), &text);
    let config = site.path("pointsman.yaml");
    std::fs::write(&config, "limits: {memory: 64MiB}\n").unwrap();
    let proxy = site.proxy(&["--workers", "2", "--config", config.to_str().unwrap()]).await;
    ready(proxy.admin).await;
    get(proxy.listen, "web.test", "/", &mut None).await.unwrap();
    let before = resident(&proxy);

    let over = Arc::new(AtomicBool::new(false));
    let (asked, served) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let good = {
        let (over, asked, served, to) = (Arc::clone(&over), Arc::clone(&asked), Arc::clone(&served), proxy.listen);
        tokio::spawn(async move {
            let mut kept = None;
            while !over.load(Relaxed) {
                for fresh in [false, true] {
                    let answered = match fresh {
                        true => get(to, "web.test", "/", &mut None).await,
                        false => get(to, "web.test", "/", &mut kept).await,
                    };
                    asked.fetch_add(1, Relaxed);
                    served.fetch_add(u32::from(matches!(answered, Ok((200, _)))), Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let (mut slow, mut most) = (Vec::new(), 0);
    for _ in 0..1_000 {
        slow.push(ask_and_do_not_read(proxy.listen).await);
        most = most.max(resident(&proxy));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        most = most.max(resident(&proxy));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Relaxed);
    good.await.unwrap();
    let (asked, served) = (asked.load(Relaxed), served.load(Relaxed));
    println!("{served} of {asked} served; resident before {before} KiB, at most {most} KiB");
    assert!(asked >= 100 && served * 100 >= asked * 99, "{served} of {asked}");
    // The account's limit, and what it does not see: twice as much again is far below what the thousand would hold.
    assert!(most < before + 96 * 1_024, "{before} KiB before, {most} KiB at most");
    assert!(proxy.log().contains("memory is short"), "{}", proxy.log());
    drop(slow);
    until("it recovers", async || {
        matches!(get(proxy.listen, "web.test", "/", &mut None).await, Ok((200, _))) && account(&proxy).await < 8e6
    })
    .await;
}

/// Bytes, by the proxy's own account.
pub async fn account(proxy: &Proxy) -> f64 {
    metric(proxy, "pointsman_memory_account_bytes").await
}

/// The first series of this name.
pub async fn metric(proxy: &Proxy, name: &str) -> f64 {
    let mut stream = TcpStream::connect(proxy.admin).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
