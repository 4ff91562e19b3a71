//! What can go wrong between us and a catalog. Whose fault it is decides how soon we try again.

use std::time::Duration;

use crate::catalog::watch::backoff::Failure;

/// A failed exchange. Messages never hold a token.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot connect to {address}: {}", whole(source))]
    Connect {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No connection, or no TLS handshake, in time.
    #[error("connecting to {address} took longer than {within:?}")]
    ConnectTimeout {
        /// Where.
        address: String,
        /// The limit.
        within: Duration,
    },
    /// The TLS settings cannot be used: a file of ours, or the name asked for. Fixed by changing the files.
    #[error("TLS settings: {0}")]
    Tls(String),
    /// Every connection of the budget is busy.
    #[error("all {limit} connections to {address} are in use")]
    Busy {
        /// Where.
        address: String,
        /// The budget now.
        limit: usize,
    },
    /// A fresh connection was closed before its first byte while others live: the way in which an agent says that a client
    /// has too many connections.
    #[error("{address} closed a new connection at once while others stay open: its limit of connections a client?")]
    Crowded {
        /// Where.
        address: String,
    },
    /// The exchange broke.
    #[error("the exchange with {address} broke: {}", whole(source))]
    Broken {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// No head in time.
    #[error("{address} did not answer within {within:?}")]
    HeadTimeout {
        /// Where.
        address: String,
        /// The limit.
        within: Duration,
    },
    /// No more of the body in time.
    #[error("the body stopped for longer than {0:?}")]
    BodyIdle(Duration),
    /// The body broke off.
    #[error("the body was cut: {}", whole(.0))]
    BodyCut(#[source] hyper::Error),
    /// The body is over the cap, as sent or inflated.
    #[error("the body is larger than {0} bytes (max_body)")]
    BodyTooLarge(usize),
    /// The body is not what its coding says.
    #[error("the body's {coding} coding is broken: {problem}")]
    Coding {
        /// Which.
        coding: String,
        /// How.
        problem: String,
    },
    /// A request that cannot be written.
    #[error("cannot write the request: {0}")]
    Request(#[from] http::Error),
}

impl HttpError {
    /// How soon to try again.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Failure::Refused,
                _ => Failure::Ordinary,
            },
            Self::Crowded { .. } | Self::Busy { .. } => Failure::Congested(0),
            Self::Request(_) => Failure::Configuration,
            Self::Tls(_)
            | Self::ConnectTimeout { .. }
            | Self::Broken { .. }
            | Self::HeadTimeout { .. }
            | Self::BodyIdle(_)
            | Self::BodyCut(_)
            | Self::BodyTooLarge(_)
            | Self::Coding { .. } => Failure::Ordinary,
        }
    }

    /// Whether it counts towards trying the next address.
    #[must_use]
    pub fn of_transport(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Broken { .. }
                | Self::HeadTimeout { .. }
                | Self::BodyIdle(_)
                | Self::BodyCut(_)
        )
    }
}

/// An error with its causes: hyper's own words say only which step failed, and a certificate's problem is a cause.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}
