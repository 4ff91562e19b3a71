//! What a worker copies for one line.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::time::Draw;

/// One request and its answer, as they are logged.
#[derive(Debug)]
pub struct Record {
    /// When the head was complete.
    pub at: SystemTime,
    /// As sent.
    pub method: Method,
    /// Lower case, no port.
    pub host: Box<str>,
    /// Path and query as sent.
    pub target: Box<str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What the client spoke: `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The header fields that the rules read.
    pub copied: Copied,
    /// The client's address, as the rules saw it.
    pub client: IpAddr,
    /// Who sent it: the client, or the trusted proxy that named it.
    pub peer: IpAddr,
    /// The TLS server name.
    pub sni: Option<Arc<str>>,
    /// The client certificate's names.
    pub san: Arc<[String]>,
    /// The request's id, as sent on.
    pub request_id: Option<HeaderValue>,
    /// The table that decided.
    pub generation: u64,
    /// The request's luck.
    pub draw: Draw,
    /// Where it went; `None`: no file matched.
    pub place: Place,
    /// What came of it.
    pub answer: Answer,
}

/// Copies of the fields that rules read.
#[derive(Debug, Default)]
pub struct Copied {
    /// Repeated fields are repeated here.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// First of each name.
    pub cookies: SmallVec<[(Text, Box<[u8]>); 2]>,
}

/// Where a request went; `None` where it did not get that far.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The file's service.
    pub service: Option<Text>,
    /// The rule's name.
    pub rule: Option<Text>,
    /// The pool's name.
    pub pool: Option<Text>,
    /// The instance of the last attempt.
    pub instance: Option<Arc<Instance>>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// As sent to the client; 499 when it went away before.
    pub status: u16,
    /// The status of a call of gRPC; `None`: it is no call, or none came.
    pub grpc_status: Option<u8>,
    /// The word of the error table; empty: none.
    pub detail: &'static str,
    /// Tries at instances.
    pub attempts: u32,
    /// Whether the arm was another than drawn.
    pub rerouted: bool,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Durations.
    pub durations: Durations,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durations {
    /// Head to last byte.
    pub total_us: u64,
    /// The last attempt's connecting; `None`: a pooled connection.
    pub connect_us: Option<u64>,
    /// Start of the last attempt to the answer's head; `None`: no answer.
    pub first_byte_us: Option<u64>,
}
