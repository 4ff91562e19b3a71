//! The engine over files: what can be said about rules without a socket.

pub mod check;
pub mod load;
