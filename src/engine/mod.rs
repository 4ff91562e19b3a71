//! The engine: pure decisions.
//!
//! Nothing in here knows a socket, a file, a clock, a log or a source of randomness; time and luck are arguments.
//! The proxy, `explain`, and every other dry run call the same functions, so they cannot disagree.
//!
//! In reading order:
pub mod balance;
pub mod diagnostic;
pub mod expr;
pub mod format;
pub mod grpc;
pub mod health;
pub mod instance;
pub mod label;
pub mod limit;
pub mod locality;
pub mod mirror;
pub mod paths;
pub mod policy;
pub mod request;
pub mod route;
pub mod rules;
pub mod selector;
pub mod snapshot;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod trace;
pub mod tries;
pub mod units;
pub mod upstream;
pub mod yaml;
