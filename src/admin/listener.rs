//! The admin listener: accepts, limits, serves HTTP/1.1. It keeps descriptors of its own, so that operators get in when
//! clients have taken all others.

use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at once, streams of events included.
const CONNECTIONS: usize = 256;
/// For a request's head, and so for an idle connection.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// What runs when the listener stops may take this long.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// After a failure to accept (no descriptors left): wait, do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is done, then lets what runs finish for at most two seconds. `reserve`: descriptors kept for
/// connections that come when the process has no others left.
pub async fn serve(listener: TcpListener, router: Router, reserve: usize, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let reserve = Reserve { kept: reserve, held: Arc::default() };
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        reserve.fill();
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places, &reserve) => accepted,
        };
        let Ok((stream, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        let reserve = reserve.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended with an error");
            }
            drop(place);
            reserve.fill();
        });
    }
    if tokio::time::timeout(STOP_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::info!("admin connections were cut at the end of their time");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    reserve: &Reserve,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = loop {
        match listener.accept().await {
            // Somebody else may be faster with what is given back: then the next one is.
            Err(error) if is_full(&error) && reserve.give() => {}
            accepted => break accepted,
        }
    }
    .inspect_err(|error| tracing::warn!(%error, "the admin listener could not accept"))?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// Descriptors that are open for nothing but to be given back.
#[derive(Clone, Debug)]
struct Reserve {
    kept: usize,
    held: Arc<Mutex<Vec<File>>>,
}

impl Reserve {
    /// Takes what is missing, as far as the system has it.
    fn fill(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.len() < self.kept {
            let Ok(file) = File::open("/dev/null") else { return };
            held.push(file);
        }
    }

    /// Gives one back. False: there is none.
    fn give(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).pop().is_some()
    }
}

/// Whether the process, or the system, has no descriptor left.
fn is_full(error: &io::Error) -> bool {
    let full = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    full.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
