//! The engine over files: what can be said about rules without a socket.

pub mod check;
pub mod command;
pub mod diff;
pub mod explain;
pub mod fmt;
pub mod inputs;
pub mod load;
pub mod numbers;
pub mod replay;
pub mod settle;
pub mod suite;
pub mod traffic;
pub mod what_if;
