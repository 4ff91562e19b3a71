//! Pointsman: a reverse proxy that routes by what instances *are*.
#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod admin;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod dry_run;
pub mod engine;
pub mod files;
pub mod forward;
pub mod observe;
pub mod publish;
pub mod serve;
pub mod server;
pub mod upstream;
