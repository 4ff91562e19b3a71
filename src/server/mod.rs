//! Accepting connections and running them: workers, limits, drain.
//!
//! In reading order: [`listen`] binds, [`plane`] starts and stops the workers, [`worker`] is one of them, [`accept`] its
//! acceptors, [`entry`] begins a connection ([`proxy_protocol`], [`tls`], [`passthrough`] by its [`client_hello`]), [`connection`] drives one client connection,
//! [`h2`] one over HTTP/2, [`io`] watches its socket, [`turns`] keeps a crowd that comes at once from delaying everybody,
//! [`slow`] resets who does not read when memory is short.

pub mod accept;
pub mod addresses;
pub mod client_hello;
pub mod connection;
pub mod entry;
pub mod h2;
pub mod io;
pub mod listen;
pub mod passthrough;
pub mod placement;
pub mod plane;
pub mod proxy_protocol;
pub mod settings;
pub mod slow;
pub mod timer;
pub mod tls;
pub mod turns;
pub mod worker;

pub use plane::{DataPlane, Drained};
pub use settings::{H2Limits, Limits, Listen};
