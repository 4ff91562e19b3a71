//! What is fast on both sides does not keep its worker from everybody else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Proxy, soon};

/// Connections that are fast.
const GREEDY: usize = 4;
/// What a small request may have to wait for, in bytes that they move meanwhile. A round of their turns is about one
/// megabyte, and the request is heard of, sent on, and answered in a round each.
const MEANWHILE: u64 = 12 << 20;
const PIECE: usize = 256 * 1024;

/// Says `ok`, or all it can, or hears all it can, as it is asked; on threads of its own, as fast as the system allows.
fn instance() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(stream)))));
    address
}

/// Ends with its connection.
fn serve(mut stream: TcpStream) {
    let mut read = Vec::new();
    while let Some(head) = head(&mut stream, &mut read) {
        match head.split(' ').nth(1).unwrap_or_default() {
            "/down" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n");
                return pour(&mut stream);
            }
            "/tunnel" => {
                let _ = stream.write_all(b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
                return pour(&mut stream);
            }
            "/up" => return swallow(&mut stream, &AtomicU64::new(0)),
            _ => drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")),
        }
    }
}

fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    let mut some = [0; 1_024];
    loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&read.drain(..at + 4).collect::<Vec<_>>()).into_owned());
        }
        match stream.read(&mut some) {
            Ok(n) if n > 0 => read.extend_from_slice(&some[..n]),
            _ => return None,
        }
    }
}

fn pour(stream: &mut TcpStream) {
    let piece = vec![0; PIECE];
    while stream.write_all(&piece).is_ok() {}
}

fn swallow(stream: &mut TcpStream, counted: &AtomicU64) {
    let mut piece = vec![0; PIECE];
    while let Ok(n) = stream.read(&mut piece)
        && n > 0
    {
        counted.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Moves what it can; ends with its connection.
fn move_all(mut stream: TcpStream, pours: bool, counted: &AtomicU64) {
    let piece = vec![0; PIECE];
    if !pours {
        return swallow(&mut stream, counted);
    }
    while stream.write_all(&piece).is_ok() {
        counted.fetch_add(PIECE as u64, Ordering::Relaxed);
    }
}

/// Clients that have their connections filled from an instance, or fill them, beside one that asks for little.
async fn beside(ask: &str, pours: bool) {
    let proxy = Proxy::to(&[instance()]).await;
    let moved: Arc<AtomicU64> = Arc::default();
    let greedy: Vec<_> = (0..GREEDY)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.address).unwrap();
            stream.write_all(format!("{ask}\r\nhost: shop\r\n\r\n").as_bytes()).unwrap();
            let (ours, counted) = (stream.try_clone().unwrap(), Arc::clone(&moved));
            (ours, thread::spawn(move || move_all(stream, pours, &counted)))
        })
        .collect();
    soon("a flood", async {
        while moved.load(Ordering::Relaxed) < 64 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut client = proxy.client().await;
    let mut meanwhile = Vec::new();
    for _ in 0..21 {
        let before = moved.load(Ordering::Relaxed);
        client.send("GET /small HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "ok");
        meanwhile.push(moved.load(Ordering::Relaxed) - before);
    }
    greedy.iter().for_each(|(ours, _)| ours.shutdown(Shutdown::Both).unwrap());
    tokio::task::spawn_blocking(|| greedy.into_iter().for_each(|(_, moving)| moving.join().unwrap())).await.unwrap();
    meanwhile.sort_unstable();
    println!("{ask}: {meanwhile:?}");
    assert!(meanwhile[10] < MEANWHILE, "{ask}: {meanwhile:?}");
}

#[tokio::test]
async fn a_small_request_does_not_wait_for_a_large_answer() {
    beside("GET /down HTTP/1.1", false).await;
}

#[tokio::test]
async fn a_small_request_does_not_wait_for_a_large_upload() {
    beside("POST /up HTTP/1.1\r\ncontent-length: 1000000000000", true).await;
}

#[tokio::test]
async fn a_small_request_does_not_wait_for_a_tunnel() {
    beside("GET /tunnel HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket", false).await;
}
