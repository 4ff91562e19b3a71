//! Snapshot: the immutable, indexed picture of the instances, and the live state that hangs off it.

pub mod live;

use std::sync::Arc;

use super::instance::Instance;
use super::label::Text;
pub use live::Live;

/// An instance plus what we know about it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What the catalog says.
    pub instance: Arc<Instance>,
    /// What we know: health, in-flight, latency. Survives rebuilds.
    pub live: Arc<Live>,
}

/// Index of an endpoint in its service.
pub type EndpointIdx = u32;

/// One service's part of a snapshot. Shared between snapshots while nothing in it changes.
#[derive(Debug)]
pub struct ServiceSnapshot {
    /// The catalog's name.
    pub name: Text,
    /// The catalog's index that this part came from (Consul's `X-Consul-Index`; a counter for files). For `explain`.
    pub catalog_index: u64,
    /// Every instance the catalog names, routable or not, sorted by identity.
    pub endpoints: Vec<Endpoint>,
    // index: LabelIndex  (helper B adds it)
}
