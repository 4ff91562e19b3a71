//! Observing: clock, metrics, access log, events.

pub mod clock;
