//! The Consul source: one blocking query a service, all states asked for, nothing removed on doubt.
//!
//! In reading order: [`Source`], then [`roster`] (which services), [`follow`] (one service), [`services`] (the list),
//! [`ask`] (one request), and the pure parts [`api`], [`entry`], [`labels`], [`position`],
//! [`resolve`].
pub mod api;
mod ask;
pub mod entry;
mod follow;
pub mod labels;
pub mod position;
mod read_once;
mod resolve;
mod roster;
mod services;
pub mod settings;
mod source;
mod subscription;

pub use read_once::{ReadOnce, read_once};
pub use settings::{Disk, Gzip, MassGuard, Select, Settings, Tls};
pub use source::Source;

/// Tells whether an address is one of these listeners of ours (P8).
pub(in crate::catalog) fn own_addresses(listeners: &[std::net::SocketAddr]) -> impl Fn(std::net::SocketAddr) -> bool {
    let own = subscription::OwnAddresses::new(listeners);
    move |addr| own.contain(addr)
}
