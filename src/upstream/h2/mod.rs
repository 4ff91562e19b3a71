//! HTTP/2 towards instances: connections that a worker's requests share, driven by a task each.
//!
//! In reading order: [`shared`] is one connection, [`pool`] those to one endpoint, [`stream`] a request on one of them,
//! [`pipe`] a body on its way out, [`socket`] a stream that has become a tunnel, [`head`] the head as HTTP/2 wants it and
//! [`fields`] the library may keep it.

pub mod fields;
pub mod head;
pub mod pipe;
pub mod pool;
pub mod shared;
pub mod socket;
pub mod stream;
pub mod websocket;

pub use shared::{Bounds, Figures};
pub use stream::Stream;
