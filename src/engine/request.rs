//! A request as the rules see it. Built from a live request by `forward`, from a traffic line by the dry run.

use std::net::IpAddr;

use http::{HeaderMap, Method};

/// What conditions and keys may read. Borrowed; building one allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'r> {
    /// As sent.
    pub method: &'r Method,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// Lower case, no port, no trailing dot.
    pub host: &'r str,
    /// Normalised, without the query.
    pub path: &'r str,
    /// The raw query without `?`; `None` when there is no `?`.
    pub query: Option<&'r str>,
    /// As received.
    pub headers: &'r HeaderMap,
    /// The client's address, IPv4-mapped ones unmapped.
    pub client: IpAddr,
    /// The server name of the TLS handshake.
    pub sni: Option<&'r str>,
    /// The subject alternative names of the client certificate.
    pub san: &'r [String],
    /// Whether the peer may send control headers (RULES.md, *Request labels*).
    pub trusted: bool,
}
