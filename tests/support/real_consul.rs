//! A real Consul agent for one test: ports and a data folder of its own, killed when it is dropped.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::HeaderName;
use pointsman::catalog::http::client::{Reply, Settings};
use pointsman::catalog::http::connect::TlsSettings;
use pointsman::catalog::http::{Address, Client, Token};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::ports::unused;

/// The token that may do everything, where ACLs are on.
pub const ROOT: &str = "7f6f2d0e-0000-4000-8000-00000000c0de";

/// A running agent: one server, in development mode (nothing kept over a restart) unless said otherwise.
pub struct Agent {
    child: Child,
    config: Value,
    http: u16,
    folder: TempDir,
    client: Client,
}

/// An agent takes no longer to start, to elect itself, and to answer.
const UP: Duration = Duration::from_secs(30);

impl Agent {
    /// An agent without ACLs.
    pub async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// An agent that denies what no token allows.
    pub async fn start_with_acl() -> Self {
        Self::with(
            json!({"acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": ROOT, "agent": ROOT}}}),
        )
        .await
    }

    /// A server that keeps what it knows over a restart.
    pub async fn start_keeping() -> Self {
        Self::with(json!({"server": true, "bootstrap_expect": 1, "performance": {"raft_multiplier": 1}})).await
    }

    async fn with(extra: Value) -> Self {
        let [http, server, lan, wan] = [(); 4].map(|()| unused().port());
        let mut config = json!({
            "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "node_name": "n1", "log_level": "ERR",
            "disable_update_check": true, "leave_on_terminate": false,
            "ports": {"http": http, "https": -1, "dns": -1, "grpc": -1, "server": server, "serf_lan": lan, "serf_wan": wan},
        });
        let extra = extra.as_object().cloned().unwrap_or_default();
        config.as_object_mut().expect("it is an object").extend(extra);
        let folder = tempfile::tempdir().expect("a folder");
        let child = spawn(&config, &folder);
        let agent = Self { child, config, http, folder, client: client(http) };
        agent.until_up().await;
        agent
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Starts it again on the same ports; in development mode it is empty.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.config, &self.folder);
        self.until_up().await;
    }

    async fn until_up(&self) {
        let began = tokio::time::Instant::now();
        while began.elapsed() < UP {
            let answer = self.client.get("/v1/health/service/consul", Duration::from_secs(5)).await;
            if answer.is_ok_and(|reply| reply.status == 200 && reply.body.len() > 2) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Consul did not come up within {UP:?}");
    }

    /// A request as the root of all; fails the test unless it is answered 200.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let reply = self.raw(Method::PUT, path, body).await;
        serde_json::from_slice(&reply).unwrap_or(Value::Null)
    }

    /// The snapshot of everything.
    pub async fn snapshot(&self) -> Bytes {
        self.raw(Method::GET, "/v1/snapshot", Bytes::new()).await
    }

    /// Restores it.
    pub async fn restore(&self, snapshot: Bytes) {
        self.raw(Method::PUT, "/v1/snapshot", snapshot).await;
    }

    /// What a path says; `Null`: no JSON.
    pub async fn get(&self, path: &str) -> Value {
        serde_json::from_slice(&self.raw(Method::GET, path, Bytes::new()).await).unwrap_or(Value::Null)
    }

    /// Registers an instance with a TTL check that passes for an hour.
    pub async fn register(&self, service: &str, id: &str, port: u16, more: Value) {
        let mut body = json!({"Name": service, "ID": id, "Address": "127.0.0.1", "Port": port,
                              "Check": {"CheckID": format!("check-{id}"), "TTL": "1h", "Status": "passing"}});
        let more = more.as_object().cloned().unwrap_or_default();
        body.as_object_mut().expect("it is an object").extend(more);
        self.put("/v1/agent/service/register?replace-existing-checks=true", &body).await;
    }

    /// Waits until the catalog knows a service: the agent tells the servers a little after it was told.
    pub async fn until_listed(&self, service: &str) {
        let (path, began) = (format!("/v1/health/service/{service}"), tokio::time::Instant::now());
        while self.raw(Method::GET, &path, Bytes::new()).await.len() <= 2 {
            assert!(began.elapsed() < UP, "{service} does not come into the catalog");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Deregisters an instance.
    pub async fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), &Value::Null).await;
    }

    /// `pass`, `warn` or `fail`.
    pub async fn check(&self, id: &str, verb: &str) {
        self.put(&format!("/v1/agent/check/{verb}/check-{id}"), &Value::Null).await;
    }

    /// The index of a service now.
    pub async fn index(&self, service: &str) -> u64 {
        let reply = self.reply(Method::GET, &format!("/v1/health/service/{service}"), Bytes::new()).await;
        let index = reply.headers.get("x-consul-index").expect("an answer has an index");
        index.to_str().expect("it is ASCII").parse().expect("it is a number")
    }

    async fn raw(&self, method: Method, path: &str, body: Bytes) -> Bytes {
        self.reply(method, path, body).await.body
    }

    async fn reply(&self, method: Method, path: &str, body: Bytes) -> Reply {
        let reply = self.client.send(method, path, body, Duration::from_secs(20)).await;
        let reply = reply.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
        reply
    }
}

fn spawn(config: &Value, folder: &TempDir) -> Child {
    let file = folder.path().join("config.json");
    std::fs::write(&file, config.to_string()).expect("the configuration is written");
    let log = std::fs::File::create(folder.path().join("log")).expect("a log");
    let mut command = Command::new(binary());
    command.arg("agent");
    if config["server"] == true {
        command.arg("-data-dir").arg(folder.path().join("data"));
    } else {
        command.arg("-dev");
    }
    command
        .arg("-config-file")
        .arg(&file)
        .stdout(Stdio::from(log.try_clone().expect("a log")))
        .stderr(Stdio::from(log))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("consul starts")
}

/// The binary, found once a process.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/consul.sh");
        let found = std::process::Command::new(script).output().expect("scripts/consul.sh can be run");
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "there is no Consul for these tests, and they are not skipped:\n{said}");
        PathBuf::from(String::from_utf8_lossy(&found.stdout).trim())
    })
}

fn client(http: u16) -> Client {
    let header = HeaderName::from_static("x-consul-token");
    Client::new(Settings {
        addresses: vec![Address::parse(&format!("http://127.0.0.1:{http}"), 8500).expect("an address")],
        token: Some(Token::literal(header, ROOT).expect("a token")),
        authorization: None,
        tls: TlsSettings::default(),
        max_connections: 2,
        connect_timeout: Duration::from_secs(3),
        body_idle: Duration::from_secs(10),
        max_body: 64 << 20,
        move_after: 3,
        gzip: None,
    })
}
