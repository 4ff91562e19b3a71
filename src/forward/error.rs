//! What goes wrong with a request, and what the client gets: the table of SEMANTICS.md, exhaustive.

use http::StatusCode;

use crate::engine::health::Evidence;
use crate::engine::route;

/// Why the client gets an answer of ours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// No file claims this host and path.
    NoRoute,
    /// No rule matched and the file has no `else`.
    NoRule,
    /// Nobody is routable.
    NoRoutableInstance,
    /// No table has been published yet.
    NotReady,
    /// The proxy is stopping.
    Draining,
    /// No connection to the instance.
    ConnectFailed,
    /// The connection broke before the answer's head.
    UpstreamReset,
    /// TLS to the instance failed.
    UpstreamTls,
    /// The answer's head is malformed or too large.
    UpstreamMalformed,
    /// No head in time, or the whole took too long.
    UpstreamTimeout,
    /// A stream reached the age at which it is ended.
    MaxStreamAge,
    /// Nothing moved in a tunnel or a stream for `stream_idle`.
    StreamIdle,
    /// Over a rate limit.
    RateLimited,
    /// Over a concurrency or memory limit.
    Overloaded,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// The path has a spelling that the settings refuse.
    PathRefused,
    /// The client's body came too slowly.
    ClientTimeout,
    /// The client's body was broken.
    ClientBody,
    /// The target is too long.
    TargetTooLong,
    /// The head is too large, or has too many fields.
    HeadTooLarge,
    /// CONNECT or TRACE.
    MethodRefused,
    /// A coding other than one `chunked`.
    TransferCoding,
    /// The authority is not one that this connection's certificate is for.
    Misdirected,
    /// A fault of ours.
    Internal,
    /// The client went away.
    ClientClosed,
}

impl Detail {
    /// The status of the answer; for `ClientClosed`, what is logged.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoRoute | Self::NoRule => StatusCode::NOT_FOUND,
            Self::NoRoutableInstance | Self::NotReady | Self::Draining | Self::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ConnectFailed | Self::UpstreamReset | Self::UpstreamTls | Self::UpstreamMalformed => {
                StatusCode::BAD_GATEWAY
            }
            Self::UpstreamTimeout | Self::MaxStreamAge | Self::StreamIdle => StatusCode::GATEWAY_TIMEOUT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::BadRequest | Self::PathRefused | Self::ClientBody => StatusCode::BAD_REQUEST,
            Self::ClientTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ClientClosed => client_closed_request(),
        }
    }

    /// The word in logs, metrics and `x-pointsman-error`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoRule => "no_rule",
            Self::NoRoutableInstance => "no_routable_instance",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::MaxStreamAge => "max_stream_age",
            Self::StreamIdle => "stream_idle",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::BadRequest => "bad_request",
            Self::PathRefused => "path_refused",
            Self::ClientTimeout => "client_timeout",
            Self::ClientBody => "client_body",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::MethodRefused => "method_refused",
            Self::TransferCoding => "transfer_coding",
            Self::Misdirected => "misdirected",
            Self::Internal => "internal",
            Self::ClientClosed => "client_closed",
        }
    }

    /// Whether the connection is closed behind the answer: what follows on it cannot be trusted, or will not come.
    #[must_use]
    pub fn closes(self) -> bool {
        match self {
            Self::BadRequest
            | Self::PathRefused
            | Self::ClientTimeout
            | Self::ClientBody
            | Self::TargetTooLong
            | Self::HeadTooLarge
            | Self::MethodRefused
            | Self::TransferCoding
            | Self::Draining
            | Self::ClientClosed => true,
            Self::NoRoute
            | Self::NoRule
            | Self::NoRoutableInstance
            | Self::NotReady
            | Self::ConnectFailed
            | Self::UpstreamReset
            | Self::UpstreamTls
            | Self::UpstreamMalformed
            | Self::UpstreamTimeout
            | Self::MaxStreamAge
            | Self::StreamIdle
            | Self::RateLimited
            | Self::Overloaded
            | Self::Misdirected
            | Self::Internal => false,
        }
    }

    /// What it says about the instance; `None`: nothing, it was not the instance's doing.
    #[must_use]
    pub fn evidence(self) -> Option<Evidence> {
        match self {
            Self::ConnectFailed | Self::UpstreamTls => Some(Evidence::Connect),
            Self::UpstreamReset => Some(Evidence::Reset),
            Self::UpstreamMalformed => Some(Evidence::Malformed),
            Self::UpstreamTimeout => Some(Evidence::Timeout),
            Self::NoRoute
            | Self::NoRule
            | Self::NoRoutableInstance
            | Self::NotReady
            | Self::Draining
            | Self::MaxStreamAge
            | Self::StreamIdle
            | Self::RateLimited
            | Self::Overloaded
            | Self::BadRequest
            | Self::PathRefused
            | Self::ClientTimeout
            | Self::ClientBody
            | Self::TargetTooLong
            | Self::HeadTooLarge
            | Self::MethodRefused
            | Self::TransferCoding
            | Self::Misdirected
            | Self::Internal
            | Self::ClientClosed => None,
        }
    }
}

impl From<route::Detail> for Detail {
    fn from(detail: route::Detail) -> Self {
        match detail {
            route::Detail::NoRoute => Self::NoRoute,
            route::Detail::NoRule => Self::NoRule,
            route::Detail::NoRoutableInstance => Self::NoRoutableInstance,
            route::Detail::MethodRefused => Self::MethodRefused,
        }
    }
}

/// nginx's 499, for the log only.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}
