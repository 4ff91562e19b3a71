//! A client that writes raw bytes and reads whole answers.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{find, soon};

/// A client's connection, byte by byte.
pub struct Client<S = TcpStream> {
    pub stream: S,
    read: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Default)]
pub struct Reply {
    /// 0: the connection ended before a whole head.
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body was as long as its framing says.
    pub whole: bool,
    /// Informational heads before the answer.
    pub informational: Vec<u16>,
}

impl Reply {
    /// All values of a field, joined by `, `.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client<TcpStream> {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Writes; a peer that has closed is not an error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("a write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// The next answer to anything but HEAD.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    pub async fn reply_to(&mut self, method: &str) -> Reply {
        let mut reply = Reply::default();
        loop {
            let Some(head) = self.head().await else { return reply };
            let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
            if (100..200).contains(&status) && status != 101 {
                reply.informational.push(status);
                continue;
            }
            (reply.status, reply.head) = (status, head);
            break;
        }
        let bodyless = method == "HEAD" || matches!(reply.status, 101 | 204 | 304);
        let chunked = reply.field("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let length = reply.field("content-length").map(|length| length.parse::<usize>().expect("a length"));
        (reply.body, reply.whole) = match (bodyless, chunked, length) {
            (true, ..) => (Vec::new(), true),
            (false, true, _) => self.chunks().await,
            (false, false, Some(length)) => {
                let whole = self.fill(length).await;
                let cut = length.min(self.read.len());
                (self.read.drain(..cut).collect(), whole)
            }
            (false, false, None) => {
                while self.more().await {}
                (std::mem::take(&mut self.read), true)
            }
        };
        reply
    }

    /// Whether the peer closes now; bytes before the end are an error.
    pub async fn is_closed(&mut self) -> bool {
        assert_eq!(self.read, b"", "nothing is left over");
        !self.more().await && self.read.is_empty()
    }

    /// Exactly so many raw bytes.
    pub async fn raw(&mut self, length: usize) -> Vec<u8> {
        assert!(self.fill(length).await, "the connection ended after {} bytes", self.read.len());
        self.read.drain(..length).collect()
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..at + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else { return (body, false) };
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            if !self.fill(size + 2).await {
                return (body, false);
            }
            body.extend(self.read.drain(..size));
            assert_eq!(self.read.drain(..2).collect::<Vec<_>>(), b"\r\n");
            if size == 0 {
                return (body, true);
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.read.len() < length {
            if !self.more().await {
                return false;
            }
        }
        true
    }

    /// Reads some more; false at the end (a reset counts as one).
    async fn more(&mut self) -> bool {
        let read = soon("an answer", self.stream.read_buf(&mut self.read)).await;
        matches!(read, Ok(n) if n > 0)
    }
}
