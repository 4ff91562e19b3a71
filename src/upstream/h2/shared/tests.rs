use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::super::Stream;
use super::*;
use crate::engine::snapshot::Live;

/// Takes one request and does not answer it; from then on it only answers pings, or nothing at all.
async fn takes_one(socket: TcpStream, is_alive: bool, told: oneshot::Sender<()>) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let _stream = connection.accept().await.unwrap().unwrap();
    told.send(()).unwrap();
    if is_alive {
        while connection.accept().await.is_some() {}
    }
    pending::<()>().await;
}

/// A request that waits on a connection to such an instance; what became of it by sweeps at these moments.
async fn swept(is_alive: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let open = Open::at_once(&Rc::default(), &Arc::new(Live::new(1)), None, false).unwrap();
    let (told, taken) = oneshot::channel();
    spawn_local(takes_one(listener.accept().await.unwrap().0, is_alive, told));
    let shared =
        Shared::start(Wire::Plain(socket), open, &Rc::default(), Bounds { streams: 100, head: 64 * 1024 }, Millis(0))
            .await
            .unwrap();
    let on = Rc::clone(&shared);
    let waiting = spawn_local(async move {
        let mut stream = Stream::<Empty<Bytes>>::new(on.slot().unwrap());
        let request = || Request::get("/").header("host", "shop").body(Empty::new()).unwrap();
        stream.send(request, false).await.is_ok()
    });
    taken.await.unwrap();
    let idle = 60_000;
    // Whatever was still under way when this began counts as a sign of life.
    let asked_at = loop {
        let at = shared.life.borrow().ask_at;
        assert!(shared.sweep(at, idle));
        if shared.life.borrow().asked.is_some() {
            break at;
        }
    };
    assert!(asked_at >= Millis(SILENCE_MS), "not before");
    while is_alive && shared.life.borrow().asked.is_some() {
        assert!(shared.sweep(asked_at, idle));
        tokio::task::yield_now().await;
    }
    assert!(shared.sweep(asked_at.plus(PONG_MS - 1), idle));
    let stays = shared.sweep(asked_at.plus(PONG_MS), idle);
    assert_eq!((stays, shared.is_closed()), (is_alive, !is_alive));
    if is_alive {
        assert!(!waiting.is_finished(), "its request may take as long as its own limits say");
        waiting.abort();
    } else {
        assert!(!waiting.await.unwrap(), "its request is told");
    }
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_cut_and_its_requests_fail() {
    let here = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(20), here.run_until(swept(false))).await.expect("an end");
}

#[tokio::test]
async fn a_peer_that_answers_pings_may_take_its_time_with_requests() {
    let here = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(20), here.run_until(swept(true))).await.expect("an end");
}
