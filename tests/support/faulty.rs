//! An instance in the test's own process that can be made to fail in the ways that instances fail.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::ports::unused;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Answers its id after 2 ms.
    Well,
    /// Refuses connections; the open ones are cut.
    Dead,
    /// Answers its id after this time.
    Slow(Duration),
    /// Answers this status at once.
    Fails(u16),
}

/// An instance; gone when dropped.
pub struct Faulty {
    /// Where it listens, also while it is dead.
    pub addr: SocketAddr,
    mode: watch::Sender<Mode>,
    hits: Arc<AtomicUsize>,
}

impl Faulty {
    /// A healthy one.
    pub async fn start(id: &str) -> Self {
        let addr = unused();
        let listener = bind(addr).expect("a free port");
        let mode = watch::Sender::new(Mode::Well);
        let hits = Arc::new(AtomicUsize::new(0));
        tokio::spawn(serve(listener, addr, mode.subscribe(), id.to_owned(), Arc::clone(&hits)));
        Self { addr, mode, hits }
    }

    /// From now on it does this.
    pub fn turn(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Requests that it has answered or failed.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(256)
}

async fn serve(
    listener: TcpListener,
    addr: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    id: String,
    hits: Arc<AtomicUsize>,
) {
    let mut listener = Some(listener);
    loop {
        if *mode.borrow_and_update() == Mode::Dead {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind(addr).expect("its own port is free"));
        }
        let Some(open) = &listener else {
            if mode.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(stream, mode.clone(), id.clone(), Arc::clone(&hits)));
            },
        }
    }
}

async fn connection(stream: TcpStream, mode: watch::Receiver<Mode>, id: String, hits: Arc<AtomicUsize>) {
    let current = mode.clone();
    let service = service_fn(move |_: Request<Incoming>| {
        hits.fetch_add(1, Ordering::Relaxed);
        let (mode, id) = (*current.borrow(), id.clone());
        async move {
            let (wait, status) = match mode {
                Mode::Well | Mode::Dead => (Duration::from_millis(2), 200),
                Mode::Slow(wait) => (wait, 200),
                Mode::Fails(status) => (Duration::ZERO, status),
            };
            tokio::time::sleep(wait).await;
            let mut answer = Response::new(Full::new(Bytes::from(id)));
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut dies = mode;
    tokio::select! {
        // A connection that breaks is the client's business.
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
        _ = dies.wait_for(|mode| *mode == Mode::Dead) => {}
    }
}
