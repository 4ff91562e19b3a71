//! The trace of a decision: a no-op on the live path, a recorder for `explain`.
//!
//! Callers ask `T::ENABLED` before they compute anything that only a trace wants, so the no-op costs nothing.

/// Takes note of how a decision came about. Rule-level notes are `decide`'s, pool-level ones `pick`'s.
pub trait Trace {
    /// Whether notes are wanted at all.
    const ENABLED: bool;
}

/// No notes: the live path.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    const ENABLED: bool = false;
}
