//! Pointsman: a reverse proxy that routes by what instances *are*.
#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod catalog;
pub mod engine;
pub mod files;
