//! Health: (state, evidence, now, policy) → (state, transition). Pure; the atomics are in `snapshot::live`.

use serde::Serialize;

/// What happened to one attempt at an endpoint, or to one active check. Never a client's own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// An answer that is not a server error (a 429 included).
    Success,
    /// An answer with this 5xx status.
    ServerError(u16),
    /// Connecting failed (refused, unreachable, TLS).
    ConnectFailed,
    /// The connection broke before or within an answer, or the answer was malformed.
    Reset,
    /// No connection, or no head, in time.
    Timeout,
    /// The active check turned to passing (after `rise`).
    CheckPassed,
    /// The active check turned to failing (after `fall`).
    CheckFailed,
    /// An operator ejected it (until readmitted).
    OperatorEject,
    /// An operator readmitted it.
    OperatorReadmit,
}
