//! Accepting on one listening socket of one worker.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{JoinHandle, spawn_local};

use super::worker::Worker;
use crate::observe::memory::Pressure;
use crate::observe::names;

/// How long accepting pauses when the system has no descriptors or memory left, or the limit is reached.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two lines in the log about it.
const TELL_MS: u64 = 10_000;

/// Starts accepting. `at`: which of the worker's listeners it is.
pub fn start(worker: &Rc<Worker>, at: usize, listener: StdListener) -> io::Result<JoinHandle<()>> {
    let listener = TcpListener::from_std(listener)?;
    Ok(spawn_local(accept(Rc::clone(worker), at, listener)))
}

async fn accept(worker: Rc<Worker>, at: usize, listener: TcpListener) {
    let mut stopped = std::pin::pin!(worker.stop.notified());
    stopped.as_mut().enable();
    while !worker.stopping.get() {
        if !worker.placement.has_room() {
            worker.forward.metrics.word(&names::ACCEPT_ERRORS, "limit");
            pause(stopped.as_mut()).await;
            continue;
        }
        if worker.forward.account.memory().pressure() >= Pressure::Pause {
            worker.forward.metrics.word(&names::ACCEPT_ERRORS, "memory");
            pause(stopped.as_mut()).await;
            continue;
        }
        let accepted = tokio::select! {
            accepted = async {
                worker.beginnings.take().await;
                listener.accept().await
            } => accepted,
            () = stopped.as_mut() => break,
        };
        if !take(&worker, at, accepted) {
            pause(stopped.as_mut()).await;
        }
    }
    // What the system has queued is served: closing the socket would reset it. The system is asked itself, for the
    // runtime knows of a connection only after its next look at events.
    let queued = match listener.into_std() {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "a listener could not be emptied"),
    };
    loop {
        match queued.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            accepted => {
                let stream = accepted.and_then(|(stream, peer)| {
                    stream.set_nonblocking(true)?;
                    Ok((TcpStream::from_std(stream)?, peer))
                });
                if !take(&worker, at, stream) {
                    return;
                }
            }
        }
    }
}

/// False: accepting should pause.
fn take(worker: &Rc<Worker>, at: usize, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
    match accepted {
        Ok((stream, peer)) => {
            worker.forward.metrics.cells().accepted.add(1);
            place(worker, at, stream, peer);
            true
        }
        Err(error) => match error.kind() {
            // The client left before it was accepted.
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => true,
            _ => {
                worker.forward.metrics.word(&names::ACCEPT_ERRORS, "system");
                tell(worker, &error);
                false
            }
        },
    }
}

/// While descriptors are lacking this happens 20 times a second; the metric counts them all.
fn tell(worker: &Worker, error: &io::Error) {
    let now = worker.forward.clock.read_millis();
    if worker.accept_told.get().is_none_or(|told| now.since(told) >= TELL_MS) {
        worker.accept_told.set(Some(now));
        tracing::warn!(%error, "accepting pauses; told once in ten seconds");
    }
}

/// Keeps a connection, or hands it to a worker that has clearly fewer.
fn place(worker: &Rc<Worker>, at: usize, stream: TcpStream, peer: SocketAddr) {
    let chosen = worker.placement.place(worker.index);
    if chosen == worker.index || worker.stopping.get() {
        if chosen != worker.index {
            worker.placement.leave(chosen);
            worker.placement.count(worker.index);
        }
        return worker.begin(at, stream, peer);
    }
    let kept = match stream.into_std().map(|stream| worker.outboxes[chosen].try_send((at, stream, peer))) {
        Ok(Ok(())) => return worker.forward.metrics.cells().handed_over.add(1),
        // The other one is behind with what it was handed already.
        Ok(Err(TrySendError::Full(kept) | TrySendError::Closed(kept))) => TcpStream::from_std(kept.1),
        Err(error) => Err(error),
    };
    worker.placement.leave(chosen);
    match kept {
        Ok(stream) => {
            worker.placement.count(worker.index);
            worker.begin(at, stream, peer);
        }
        Err(error) => tracing::warn!(%peer, %error, "a connection could not be handed over and is closed"),
    }
}

async fn pause(stopped: std::pin::Pin<&mut tokio::sync::futures::Notified<'_>>) {
    let _ = tokio::time::timeout(PAUSE, stopped).await;
}
