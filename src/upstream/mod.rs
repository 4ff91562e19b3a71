//! Connections to instances: each worker has its own, without a lock.
//!
//! In reading order: [`link`] is what a request holds of one, [`http1`] a connection of its own, [`h2`] a stream of a
//! shared one, [`pace`] how fast the former is read; [`peer`] is the worker's side of one endpoint with its idle and shared connections, [`peers`] all of them;
//! [`seat`] bounds how many there are; [`received`] is a body that comes in, [`dial`] makes the [`wire`], begins it with a [`proxy_head`], and goes by what [`trust`] believes; [`checks`] asks instances on its own account, from the
//! control plane.

pub mod dial;
pub mod h2;
pub mod http1;
pub mod link;
pub mod pace;
pub mod peer;
pub mod peers;
pub mod proxy_head;
pub mod received;
pub mod seat;
pub mod trust;
pub mod wire;

pub mod checks;

pub use dial::Dial;
pub use link::Link;
pub use peer::Peer;
pub use peers::Peers;
pub use proxy_head::Ends;
pub use received::Received;
pub use trust::Trusts;
