//! The admin listener: accepts, limits, serves HTTP/1.1.

use std::future::Future;
use std::io;
use std::sync::Arc;
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

/// Serves until `stop` is done, then lets what runs finish for at most two seconds.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
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
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended with an error");
            }
            drop(place);
        });
    }
    if tokio::time::timeout(STOP_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::info!("admin connections were cut at the end of their time");
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await.inspect_err(|error| {
        tracing::warn!(%error, "the admin listener could not accept");
    })?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}
