//! What the proxy lets people see: metrics, events, the access log, its own log; and the process's clock.
//!
//! The data plane only copies and counts; formatting, files and locks are on other threads. In reading order:
pub mod access_log;
pub mod clock;
pub mod events;
pub mod limit_book;
pub mod line_writer;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod recent;
pub mod reloads;
pub mod seats;
pub mod shadow;
pub mod timestamp;
pub mod transitions;
