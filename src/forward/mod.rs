//! One request through its phases: accept → limits → labels → decide → pick → attempt → (retry) → respond → account.
//!
//! In reading order: [`request`] is the whole path; [`validate`], [`headers`], [`attempt`], [`judge`], [`retry`] and
//! [`respond`] are its phases; [`upload`], [`body`] and [`upgrade`] move bytes by [`turn`]s, [`trailers`] what stands behind them, [`grpc`] and [`grpc_web`]
//! know calls; [`exchange`] is a request's account;
//! [`error`] is the table from what went wrong to what the client gets. [`worker`] and [`view`] are what a worker's
//! requests share, [`connection`] what a connection shares with its driver.

pub mod answer;
pub mod attempt;
pub mod authority;
pub mod body;
pub mod clock;
pub mod connection;
pub mod edit;
pub mod error;
pub mod exchange;
pub mod forwarded;
pub mod frames;
pub mod grpc;
pub mod grpc_web;
pub mod headers;
pub mod hedge;
pub mod https;
pub mod judge;
mod latency;
pub mod limit;
pub mod mirror;
pub mod passthrough;
pub mod patience;
pub mod queue;
pub mod request;
pub mod respond;
pub mod retry;
pub mod samples;
pub mod settings;
pub mod shadow;
pub mod survey;
pub mod traced;
pub mod trailers;
pub mod turn;
pub mod unsent;
pub mod upgrade;
pub mod upload;
pub mod validate;
pub mod view;
pub mod wait;
pub mod watch;
pub mod worker;

pub use crate::upstream::Received;
pub use crate::upstream::h2::pipe::{Pipe, Piped};
pub use crate::upstream::h2::socket::StreamSocket;
pub use crate::upstream::h2::websocket;
pub use crate::upstream::received::Sender;
pub use connection::Connection;
pub use settings::Settings;
pub use worker::{Shared, Worker};
