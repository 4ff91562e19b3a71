//! Instances with any manners.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Reply, find};
use crate::ports::unused;

/// A request as an instance got it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// The number of the request on its connection, from 0.
    pub turn: usize,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    pub fn field(&self, name: &str) -> Option<String> {
        Reply { head: self.head.clone(), ..Reply::default() }.field(name)
    }
}

/// What an instance does with a request.
pub enum Act {
    /// Writes and keeps the connection.
    Write(Vec<u8>),
    /// Writes and closes.
    WriteThenClose(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Says nothing more, and keeps the connection open.
    Hang,
}

/// 200 with this text.
pub fn ok(text: &str) -> Act {
    Act::Write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes())
}

/// A bare status.
pub fn status(code: u16) -> Act {
    Act::Write(format!("HTTP/1.1 {code} Status\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

/// A scripted instance.
pub struct Scripted {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Reads whole requests and acts on each.
    pub async fn http(act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (all, act) = (Arc::clone(&seen), Arc::new(act));
        let mut scripted = Self::raw(move |stream, connection| {
            let (all, act) = (Arc::clone(&all), Arc::clone(&act));
            async move { serve(stream, connection, &all, &*act).await }
        })
        .await;
        scripted.seen = seen;
        scripted
    }

    /// Hands each connection over with its number.
    pub async fn raw<F: Future<Output = ()> + Send + 'static>(
        manner: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self {
        // Nobody else is given its port when it is gone.
        let listener = TcpListener::bind(unused()).await.unwrap();
        Self::on(listener, manner)
    }

    /// As `raw`, on a listener of the test's own.
    pub fn on<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        manner: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let _ = stream.set_nodelay(true);
                open.spawn(manner(stream, counted.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { address, seen: Arc::default(), connections, task }
    }

    /// Echoes method, target and body.
    pub async fn echo() -> Self {
        Self::http(|seen| ok(&format!("{} {}", seen.line(), String::from_utf8_lossy(&seen.body)))).await
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Stops as if killed: the listener and all connections are gone.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(mut stream: TcpStream, connection: usize, all: &Mutex<Vec<Seen>>, act: &(dyn Fn(&Seen) -> Act + Sync)) {
    let mut read = Vec::new();
    for turn in 0.. {
        let Some(seen) = read_request(&mut stream, &mut read, connection, turn).await else { return };
        all.lock().unwrap().push(seen.clone());
        match act(&seen) {
            Act::Write(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::WriteThenClose(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Act::Reset => return reset(&stream),
            Act::Hang => std::future::pending().await,
        }
    }
}

/// Makes the coming close a reset.
pub fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// One whole request; `None` at the end of the connection.
pub async fn read_request(stream: &mut TcpStream, read: &mut Vec<u8>, connection: usize, turn: usize) -> Option<Seen> {
    let head = loop {
        if let Some(at) = find(read, b"\r\n\r\n") {
            break String::from_utf8_lossy(&read.drain(..at + 4).collect::<Vec<_>>()).into_owned();
        }
        more(stream, read).await?;
    };
    let mut seen = Seen { head, body: Vec::new(), connection, turn };
    if let Some(length) = seen.field("content-length") {
        let length: usize = length.parse().expect("a length");
        while read.len() < length {
            more(stream, read).await?;
        }
        seen.body = read.drain(..length).collect();
    } else if seen.field("transfer-encoding").is_some() {
        loop {
            let at = loop {
                match find(read, b"\r\n") {
                    Some(at) => break at,
                    None => more(stream, read).await?,
                }
            };
            let line = String::from_utf8_lossy(&read.drain(..at + 2).collect::<Vec<_>>()).into_owned();
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            while read.len() < size + 2 {
                more(stream, read).await?;
            }
            seen.body.extend(read.drain(..size));
            read.drain(..2);
            if size == 0 {
                break;
            }
        }
    }
    Some(seen)
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(read).await, Ok(n) if n > 0).then_some(())
}
