//! What the proxy lets people see: metrics, events, the access log, its own log.
//!
//! The data plane only copies and counts; formatting, files and locks are on other threads. In reading order:
pub mod line_writer;
pub mod metrics;
pub mod names;
