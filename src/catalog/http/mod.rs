//! The thin HTTP client of all control-plane catalogs: one blocked query a connection, kept alive and never pipelined
//! (HTTP/2 multiplexed where TLS offers it), every wait with a deadline, bodies with a cap, no redirect followed.
//!
//! In reading order: [`client`], then [`pool`], [`connect`], [`body`], [`address`], [`token`], [`error`].
pub mod address;
pub mod body;
pub mod client;
pub mod connect;
pub mod error;
pub mod pool;
pub mod token;

pub use address::Address;
pub use client::{Client, Reply, Settings};
pub use error::HttpError;
pub use token::Token;
