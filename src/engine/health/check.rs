//! The active check's verdict: rise and fall. It is apart from passive ejection; both must agree for traffic.

use std::fmt;

use serde::Serialize;

/// What the active check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not checked yet.
    #[default]
    Unknown,
    /// Passing.
    Passing,
    /// Failing: not routable.
    Failing,
}

/// Why one check failed, as far as an event or `explain` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "failure")]
pub enum Failure {
    /// No verdict in time.
    Timeout,
    /// The connection was not made.
    Connect,
    /// The TLS handshake failed: the address may belong to somebody else by now.
    Tls,
    /// The exchange broke, or what came is not the protocol.
    Exchange,
    /// Not an accepted status.
    Status {
        /// It.
        code: u16,
    },
    /// The expected header is missing or different: the address may belong to somebody else by now.
    Header,
    /// The expected text did not come.
    Text,
    /// A gRPC status other than OK.
    Grpc {
        /// It; 12: there is no health service, 5: it does not know the service asked for.
        code: u16,
    },
    /// The gRPC health service does not say SERVING.
    NotServing {
        /// What it says: 0 UNKNOWN, 2 `NOT_SERVING`, 3 `SERVICE_UNKNOWN`.
        code: u16,
    },
    /// The command ended with this status.
    Exit {
        /// It; from 256 on: a signal's number plus 256.
        code: u16,
    },
    /// The command could not be started.
    Spawn,
    /// The certificate is not for the expected name: the address may belong to somebody else by now.
    TlsName,
}

impl Failure {
    /// The label in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Exchange => "exchange",
            Self::Status { .. } => "status",
            Self::Header => "header",
            Self::Text => "text",
            Self::Grpc { .. } => "grpc",
            Self::NotServing { .. } => "not_serving",
            Self::Exit { .. } => "exit",
            Self::Spawn => "spawn",
            Self::TlsName => "tls_name",
        }
    }

    /// One word of an atomic; never 0.
    #[must_use]
    pub fn pack(self) -> u32 {
        let (kind, code) = match self {
            Self::Timeout => (1, 0),
            Self::Connect => (2, 0),
            Self::Tls => (3, 0),
            Self::Exchange => (4, 0),
            Self::Status { code } => (5, code),
            Self::Header => (6, 0),
            Self::Text => (7, 0),
            Self::Grpc { code } => (8, code),
            Self::NotServing { code } => (9, code),
            Self::Exit { code } => (10, code),
            Self::Spawn => (11, 0),
            Self::TlsName => (12, 0),
        };
        kind << 16 | u32::from(code)
    }

    /// From [`Failure::pack`]; `None` for anything else.
    #[must_use]
    pub fn unpack(word: u32) -> Option<Self> {
        let code = word as u16;
        Some(match word >> 16 {
            1 => Self::Timeout,
            2 => Self::Connect,
            3 => Self::Tls,
            4 => Self::Exchange,
            5 => Self::Status { code },
            6 => Self::Header,
            7 => Self::Text,
            8 => Self::Grpc { code },
            9 => Self::NotServing { code },
            10 => Self::Exit { code },
            11 => Self::Spawn,
            12 => Self::TlsName,
            _ => return None,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Connect => f.write_str("no connection"),
            Self::Tls => f.write_str("the TLS handshake failed"),
            Self::Exchange => f.write_str("a broken exchange"),
            Self::Status { code } => write!(f, "status {code}"),
            Self::Header => f.write_str("a header is not as expected"),
            Self::Text => f.write_str("the expected text did not come"),
            Self::Grpc { code: 12 } => f.write_str("it has no gRPC health service"),
            Self::Grpc { code: 5 } => f.write_str("its gRPC health service does not know the service asked for"),
            Self::Grpc { code } => write!(f, "gRPC status {code}"),
            Self::NotServing { code: 2 } => f.write_str("it says NOT_SERVING"),
            Self::NotServing { code: 3 } => f.write_str("it says SERVICE_UNKNOWN"),
            Self::NotServing { .. } => f.write_str("it says UNKNOWN"),
            Self::Exit { code: signal @ 256.. } => write!(f, "the command was ended by signal {}", signal - 256),
            Self::Exit { code } => write!(f, "the command ended with {code}"),
            Self::Spawn => f.write_str("the command could not be started"),
            Self::TlsName => f.write_str("its certificate is not for the expected name"),
        }
    }
}

/// The verdict and the answers in a row that speak against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckState {
    /// The verdict in force.
    pub verdict: Verdict,
    /// Answers in a row that differ from it.
    pub against: u32,
}

/// One answer of the check. The very first pass counts at once; failing needs `fall` in a row even at first,
/// so that a slow start is not an outage; back to passing needs `rise` in a row.
#[must_use]
pub fn step(state: CheckState, passed: bool, rise: u32, fall: u32) -> CheckState {
    let (wanted, needed) = match (state.verdict, passed) {
        (Verdict::Passing, true) | (Verdict::Failing, false) => return CheckState { against: 0, ..state },
        (Verdict::Unknown, true) => (Verdict::Passing, 1),
        (Verdict::Failing, true) => (Verdict::Passing, rise.max(1)),
        (Verdict::Unknown | Verdict::Passing, false) => (Verdict::Failing, fall.max(1)),
    };
    let against = state.against.saturating_add(1);
    if against >= needed { CheckState { verdict: wanted, against: 0 } } else { CheckState { against, ..state } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: &[bool]) -> Verdict {
        answers.iter().fold(CheckState::default(), |state, passed| step(state, *passed, 2, 3)).verdict
    }

    #[test]
    fn a_failure_survives_an_atomic() {
        let all = [
            Failure::Timeout,
            Failure::Connect,
            Failure::Tls,
            Failure::Exchange,
            Failure::Status { code: 503 },
            Failure::Header,
            Failure::Text,
            Failure::Grpc { code: 14 },
            Failure::NotServing { code: 2 },
            Failure::Exit { code: 265 },
            Failure::Spawn,
            Failure::TlsName,
        ];
        for failure in all {
            assert_eq!(Failure::unpack(failure.pack()), Some(failure));
        }
        assert_eq!(Failure::unpack(0), None);
        assert_eq!(Failure::Exit { code: 265 }.to_string(), "the command was ended by signal 9");
    }

    #[test]
    fn the_verdict_follows_rise_and_fall() {
        assert_eq!(after(&[true]), Verdict::Passing);
        assert_eq!(after(&[false, false]), Verdict::Unknown);
        assert_eq!(after(&[false, false, false]), Verdict::Failing);
        assert_eq!(after(&[true, false, false, true, false, false]), Verdict::Passing);
        assert_eq!(after(&[true, false, false, false]), Verdict::Failing);
        assert_eq!(after(&[true, false, false, false, true]), Verdict::Failing);
        assert_eq!(after(&[true, false, false, false, true, true]), Verdict::Passing);
    }
}
