//! The demo's instances: small HTTP servers that say who they are, can be stopped like a crashed process, and started
//! again on the same port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

/// After a failed accept (no descriptors, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// One running instance.
#[derive(Debug)]
pub struct DemoInstance {
    /// Its id in the catalog.
    pub id: String,
    /// Where it listens; kept over a stop and a start.
    pub addr: SocketAddr,
    greeting: Arc<str>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl DemoInstance {
    /// Starts an instance on a loopback port (0: any free one); it answers every request with its id and labels.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start(id: &str, port: u16, labels: &BTreeMap<String, String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut instance = Self {
            id: id.to_owned(),
            addr: listener.local_addr()?,
            greeting: format!("{id} {}\n", words.join(" ")).into(),
            task: None,
        };
        instance.serve(listener);
        Ok(instance)
    }

    /// Ends it as a crash would: the listener and every connection are closed at once.
    pub fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Starts it again where it was.
    ///
    /// # Errors
    /// When its port has been taken meanwhile.
    pub fn restart(&mut self) -> std::io::Result<()> {
        if self.task.is_none() {
            let socket = TcpSocket::new_v4()?;
            // Connections of its former life may linger on the port.
            socket.set_reuseaddr(true)?;
            socket.bind(self.addr)?;
            self.serve(socket.listen(BACKLOG)?);
        }
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let greeting = Arc::clone(&self.greeting);
        self.task = Some(tokio::spawn(async move {
            // The set ends its tasks when it is dropped, so an aborted instance cuts its connections too.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let greeting = Arc::clone(&greeting);
                connections.spawn(async move {
                    let answer = service_fn(|request| std::future::ready(answer(&request, &greeting)));
                    // A connection that breaks is the client's business; the next one starts afresh.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

fn answer(request: &Request<Incoming>, greeting: &str) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/health" => "ok\n".to_owned(),
        _ => greeting.to_owned(),
    };
    Ok(Response::new(Full::new(body.into())))
}
