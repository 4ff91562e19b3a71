//! An instance that reads by the strictest parser there is, and keeps what it read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::strict::{self, Message};
use crate::harness::Scripted;

pub struct Recorder {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    _instance: Scripted,
}

#[derive(Default)]
struct Kept {
    messages: Vec<Message>,
    wrong: Vec<String>,
}

impl Recorder {
    pub async fn start() -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let all = Arc::clone(&kept);
        let instance = Scripted::raw(move |stream, _| record(stream, Arc::clone(&all))).await;
        Self { address: instance.address, kept, _instance: instance }
    }

    /// What was read; fails when something could not be.
    pub fn messages(&self, what: &str) -> Vec<Message> {
        let kept = self.kept.lock().unwrap();
        assert!(kept.wrong.is_empty(), "{what}: {:?}", kept.wrong);
        kept.messages.clone()
    }
}

async fn record(mut stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut read = Vec::new();
    loop {
        match strict::request(&read) {
            Ok(Some((message, length))) => {
                read.drain(..length);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-path: {}\r\n\r\nok", message.path());
                kept.lock().unwrap().messages.push(message);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => return kept.lock().unwrap().wrong.push(format!("{why}: {}", read.escape_ascii())),
        }
        if !matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
            return;
        }
    }
}
