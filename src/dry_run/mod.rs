//! The engine over files: what can be said about rules without a socket.

pub mod assemble;
pub mod check;
pub mod explain;
pub mod fmt;
pub mod load;
