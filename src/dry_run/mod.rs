//! The engine over files: what can be said about rules without a socket.

pub mod check;
pub mod command;
pub mod inputs;
pub mod load;
pub mod settle;
pub mod traffic;
pub mod what_if;
