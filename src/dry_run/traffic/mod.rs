//! Captured traffic: what it was written by, line by line, with as much memory for a terabyte as for a page.

pub mod combined;
pub mod detect;
pub mod envoy;
pub mod har;
pub mod line;
pub mod stream;

use crate::engine::format::traffic::TrafficRequest;

/// What a traffic file was written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Traffic lines, the proxy's own access log included.
    Traffic,
    /// `combined` of nginx and Apache, with or without a virtual host in front.
    Combined,
    /// Envoy's JSON access log.
    Envoy,
    /// An HTTP archive, as browsers save it.
    Har,
}

/// A request as it was captured.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Normalised as `forward` does it.
    pub request: TrafficRequest,
    /// Fields whose values were replaced by hashes: `header.NAME`, `cookie.NAME`, `client`, `query`.
    pub redacted: Vec<String>,
}

impl Format {
    /// All of them with their words.
    pub const ALL: [(&'static str, Self); 4] =
        [("traffic", Self::Traffic), ("combined", Self::Combined), ("envoy", Self::Envoy), ("har", Self::Har)];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(word, _)| word)
    }

    /// Reads one line. `host` is for lines that do not name one. The error is a sentence.
    pub fn read(self, line: &str, host: &str) -> Result<Captured, String> {
        match self {
            // An archive's entries come as traffic lines.
            Self::Traffic | Self::Har => line::read(line, host),
            Self::Combined => combined::read(line, host),
            Self::Envoy => envoy::read(line, host),
        }
    }
}
