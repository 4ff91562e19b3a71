//! HTTP/2 byte by byte: frames that no library would write.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer than any limit that the tests set.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What came until the end of a connection.
#[derive(Debug, Default)]
pub struct Heard {
    pub goaway: Option<u32>,
    pub resets: Vec<u32>,
    pub heads: usize,
    pub ended: bool,
}

pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// The preface and empty settings.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut raw = Self::bare(address).await;
        raw.write(PREFACE).await;
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    /// Not a byte yet.
    pub async fn bare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// False: the peer takes no more.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload)).await
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.read.first_chunk::<9>().copied() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                if self.read.len() >= 9 + length {
                    let payload = self.read[9..9 + length].to_vec();
                    self.read.drain(..9 + length);
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
                    return Some(Frame { kind: head[3], flags: head[4], stream, payload });
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            if !matches!(read, Ok(Ok(n)) if n > 0) {
                return None;
            }
        }
    }

    /// Everything until the end, or until this stream has been reset or answered whole.
    pub async fn hear(&mut self, until: Option<u32>) -> Heard {
        let mut heard = Heard::default();
        loop {
            let Some(frame) = self.next().await else {
                heard.ended = true;
                return heard;
            };
            match frame.kind {
                GOAWAY => heard.goaway = frame.payload.get(4..8).map(word),
                RST_STREAM => heard.resets.extend(frame.payload.get(..4).map(word)),
                HEADERS => heard.heads += 1,
                _ => {}
            }
            let over =
                frame.kind == RST_STREAM || matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
            if over && until == Some(frame.stream) {
                return heard;
            }
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A field as HPACK writes one that is in no table, whatever is in it.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    coded(0x00, name.as_ref(), value.as_ref())
}

/// The same, put into the dynamic table.
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    coded(0x40, name.as_bytes(), value.as_bytes())
}

fn coded(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            out.push(length as u8);
        } else {
            out.push(127);
            length -= 127;
            while length >= 128 {
                out.push((length % 128 + 128) as u8);
                length /= 128;
            }
            out.push(length as u8);
        }
        out.extend(text);
    }
    out
}

/// A request's head: these pseudo-fields and fields, in this order.
pub fn head(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// GET or POST for a path, with more fields.
pub fn asked(method: &str, path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut all: Vec<(&[u8], &[u8])> = vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", path.as_bytes()),
    ];
    all.extend(more);
    head(&all)
}
