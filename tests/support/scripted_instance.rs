//! An instance whose answers a test decides while it runs: how late, with which status.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What it does now.
#[derive(Debug)]
pub struct Script {
    /// Milliseconds before each answer.
    pub delay: AtomicU64,
    /// The status of each answer.
    pub status: AtomicU16,
    /// Requests that have come.
    pub requests: AtomicU64,
}

/// A running instance; it ends when dropped.
pub struct ScriptedInstance {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it does now.
    pub script: Arc<Script>,
    task: tokio::task::JoinHandle<()>,
}

impl ScriptedInstance {
    /// Answers every request with 200 and its id at once, until told otherwise.
    pub async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let script =
            Arc::new(Script { delay: AtomicU64::new(0), status: AtomicU16::new(200), requests: AtomicU64::new(0) });
        let task = tokio::spawn(serve(listener, Arc::clone(&script), Bytes::from(format!("{id} \n"))));
        Self { addr, script, task }
    }

    /// From now on.
    pub fn answers(&self, status: u16, delay_ms: u64) {
        self.script.status.store(status, Ordering::Relaxed);
        self.script.delay.store(delay_ms, Ordering::Relaxed);
    }
}

impl Drop for ScriptedInstance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>, body: Bytes) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, body) = (Arc::clone(&script), body.clone());
        connections.spawn(async move {
            let answer = service_fn(|_| {
                let (script, body) = (Arc::clone(&script), body.clone());
                async move {
                    script.requests.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(script.delay.load(Ordering::Relaxed))).await;
                    let status = script.status.load(Ordering::Relaxed);
                    Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(body)).unwrap())
                }
            });
            // A client that goes away is not the script's business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A catalog file of `web` with these instances, all of version 1.2.
pub fn catalog(instances: &[(&str, &ScriptedInstance)]) -> String {
    let mut text = "services:\n  web:\n".to_owned();
    for (id, instance) in instances {
        let addr = instance.addr;
        text.push_str(&format!(
            "    - {{id: {id}, address: {}, port: {}, labels: {{version: \"1.2\"}}}}\n",
            addr.ip(),
            addr.port()
        ));
    }
    text
}
