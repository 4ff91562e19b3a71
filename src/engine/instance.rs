//! An instance: one process of a service, as the catalog describes it. What we learn ourselves is in `snapshot::live`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::label::{Labels, Text};

/// What the catalog's own checks say (worst of node and service checks; CATALOGS.md M4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every check passes, or there is none.
    #[default]
    Passing,
    /// Some check warns, none is critical.
    Warning,
    /// Some check is critical.
    Critical,
    /// An operator took it out.
    Maintenance,
}

impl Status {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::Passing, Self::Warning, Self::Critical, Self::Maintenance];

    /// The word used in files and in expressions.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }
}

/// Traffic weights by status. 0 takes no traffic. At most 65,535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Weights {
    /// Weight while passing.
    pub passing: u32,
    /// Weight while warning.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// One instance of a service. Immutable; a change in the catalog is a new value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// Unique over all sources and stable over restarts: source, dc, namespace, partition, peer, node, service ID.
    /// With `addr` it is the key of the live state.
    pub identity: Text,
    /// What people see: the service ID, or `node/ID` where two collide within the service.
    pub id: Text,
    /// The catalog's service name.
    pub service: Text,
    /// Where to connect. A host name of the catalog has been resolved.
    pub addr: SocketAddr,
    /// The address as the catalog spells it (an IP, or a host name).
    pub host: Text,
    /// The catalog's node name; empty when it has none.
    pub node: Text,
    /// The catalog's datacenter; empty when it has none.
    pub dc: Text,
    /// Final labels: spellings mapped, tags read.
    pub labels: Labels,
    /// The catalog's tags, as they are.
    pub tags: Arc<[Text]>,
    /// Weights by status.
    pub weights: Weights,
    /// The catalog's verdict.
    pub status: Status,
}

impl Instance {
    /// The weight in force for the current status; 0 when it may take no traffic.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self.status {
            Status::Passing => self.weights.passing,
            Status::Warning => self.weights.warning,
            Status::Critical | Status::Maintenance => 0,
        }
    }
}
