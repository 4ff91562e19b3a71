//! A bounded load of requests over loopback, on kept-alive and on new connections, every answer judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// No load runs longer than this.
const LONGEST: Duration = Duration::from_secs(120);
/// No single answer may take longer.
const ANSWER: Duration = Duration::from_secs(20);

/// What came of a load.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with 200 and a whole body.
    pub good: usize,
    /// Everything else, in words, with the time since the start.
    pub bad: Vec<(Duration, String)>,
    /// Good answers by body.
    pub bodies: BTreeMap<String, usize>,
    /// The slowest good answer.
    pub slowest: Duration,
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// GETs of `/` with the given Host at about `per_second` in all, from four clients; every tenth request of each
    /// client opens a new connection.
    pub fn start(to: SocketAddr, host: &str, per_second: u32) -> Self {
        Self::of(to, host, per_second, |_| "/".to_owned())
    }

    /// The same with another `n` in the query of each request.
    pub fn keyed(to: SocketAddr, host: &str, per_second: u32) -> Self {
        Self::of(to, host, per_second, |n| format!("/?n={n}"))
    }

    fn of(to: SocketAddr, host: &str, per_second: u32, target: fn(usize) -> String) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let tasks = (0..4)
            .map(|client| {
                let (stop, tally, host) = (Arc::clone(&stop), Arc::clone(&tally), host.to_owned());
                let gap = Duration::from_secs(4) / per_second.max(1);
                tokio::spawn(async move { run(to, &host, target, gap, client, &stop, &tally).await })
            })
            .collect();
        Self { stop, tally, tasks }
    }

    /// Good answers so far, by body.
    pub fn bodies(&self) -> BTreeMap<String, usize> {
        self.tally.lock().unwrap().bodies.clone()
    }

    /// Good answers so far.
    pub fn good(&self) -> usize {
        self.tally.lock().unwrap().good
    }

    /// Ends the load and gives its tally.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a load client does not panic");
        }
        std::mem::take(&mut *self.tally.lock().unwrap())
    }
}

async fn run(
    to: SocketAddr,
    host: &str,
    target: fn(usize) -> String,
    gap: Duration,
    client: usize,
    stop: &AtomicBool,
    tally: &Mutex<Tally>,
) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(gap);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = None;
    for n in client.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) || start.elapsed() > LONGEST {
            return;
        }
        if n % 10 == 0 {
            connection = None;
        }
        let sent = Instant::now();
        let outcome = match tokio::time::timeout(ANSWER, get(to, host, &target(n * 4 + client), &mut connection)).await
        {
            Ok(Ok((200, body))) => Ok(body),
            Ok(Ok((status, body))) => Err(format!("status {status}: {body}")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let mut tally = tally.lock().unwrap();
        match outcome {
            Ok(body) => {
                tally.good += 1;
                tally.slowest = tally.slowest.max(sent.elapsed());
                *tally.bodies.entry(body).or_default() += 1;
            }
            Err(words) => {
                connection = None;
                tally.bad.push((start.elapsed(), words));
            }
        }
    }
}

/// A connection to send requests on.
pub type Connection = Option<http1::SendRequest<Full<Bytes>>>;

/// One GET on the kept connection, or on a new one. A kept connection that the server has closed since is replaced, as
/// every client does; an exchange that breaks once it has begun is an error.
pub async fn get(to: SocketAddr, host: &str, path: &str, connection: &mut Connection) -> Result<(u16, String), String> {
    let request = Request::get(path).header("host", host).body(Full::default()).expect("a request");
    let answer = send(to, request, connection).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(|e| format!("body cut: {e}"))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
}

/// Sends a request on the kept connection, or on a new one.
pub async fn send(
    to: SocketAddr,
    mut request: Request<Full<Bytes>>,
    connection: &mut Connection,
) -> Result<Response<Incoming>, String> {
    loop {
        let kept = connection.take();
        let fresh = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            None => connect(to).await?,
        };
        if sender.ready().await.is_err() {
            if fresh {
                return Err("the fresh connection was closed".to_owned());
            }
            continue;
        }
        match sender.try_send_request(request).await {
            Ok(answer) => {
                *connection = Some(sender);
                return Ok(answer);
            }
            Err(mut error) => match error.take_message().filter(|_| !fresh) {
                Some(unsent) => request = unsent,
                None => return Err(format!("no answer: {}", error.into_error())),
            },
        }
    }
}

async fn connect(to: SocketAddr) -> Result<http1::SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(to).await.map_err(|e| format!("connect: {e}"))?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("handshake: {e}"))?;
    tokio::spawn(async move {
        // The request that meets a broken connection reports it; the driver has nobody else to tell.
        let _ = driver.await;
    });
    Ok(sender)
}
