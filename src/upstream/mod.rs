//! Connections to instances: each worker has its own, without a lock.
//!
//! In reading order: [`link`] is one connection, [`peer`] the worker's side of one endpoint with its idle links,
//! [`peers`] all of them, [`wire`] the socket; [`checks`] asks instances on its own account, from the control plane.

pub mod link;
pub mod peer;
pub mod peers;
pub mod wire;

pub mod checks;

pub use link::Link;
pub use peer::Peer;
pub use peers::Peers;
