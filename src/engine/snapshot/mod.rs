//! Snapshot: the immutable, indexed picture of the instances, and the live state that hangs off it.

pub mod answer_times;
pub mod bitset;
pub mod diff;
pub mod grace;
pub mod label_index;
mod latency;
pub mod live;
pub mod live_set;
pub mod window;
mod word;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::instance::{Instance, Status};
use super::label::Text;
use super::time::Millis;
pub use bitset::Bitset;
pub use label_index::LabelIndex;
pub use live::Live;
pub use live_set::LiveSet;

/// An instance plus what we know about it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What the catalog says.
    pub instance: Arc<Instance>,
    /// What we know: health, in-flight, latency. Survives rebuilds.
    pub live: Arc<Live>,
    /// Counts as passing though the catalog calls it critical (see [`grace`]).
    pub graced: bool,
}

impl Endpoint {
    /// The status in force: the catalog's, or passing while graced.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.graced { Status::Passing } else { self.instance.status }
    }

    /// The weight in force; 0 takes no traffic.
    #[must_use]
    pub fn weight(&self) -> u32 {
        if self.graced { self.instance.weights.passing } else { self.instance.weight() }
    }

    /// Whether no operator took it out: what even a pool's panic respects.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status() != Status::Maintenance && !self.live.drained()
    }
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
    /// Every instance the catalog names, routable or not, sorted by identity, then address.
    pub endpoints: Vec<Endpoint>,
    /// Who has which label; indices are those of `endpoints`.
    pub index: LabelIndex,
}

impl ServiceSnapshot {
    /// The picture of one service's whole state. Live state is attached by identity and address; whoever is not named
    /// any more starts the five minutes after which its live state is forgotten.
    #[must_use]
    pub fn build(
        name: Text,
        catalog_index: u64,
        instances: Vec<Arc<Instance>>,
        live: &mut LiveSet,
        now: Millis,
    ) -> Arc<Self> {
        Self::build_with_grace(name, catalog_index, instances, &BTreeSet::new(), live, now)
    }

    /// As [`ServiceSnapshot::build`]; critical instances whose identity is in `grace` count as passing.
    #[must_use]
    pub fn build_with_grace(
        name: Text,
        catalog_index: u64,
        mut instances: Vec<Arc<Instance>>,
        grace: &BTreeSet<Text>,
        live: &mut LiveSet,
        now: Millis,
    ) -> Arc<Self> {
        instances.sort_by(|a, b| (&a.identity, a.addr).cmp(&(&b.identity, b.addr)));
        instances.dedup_by(|later, first| later.identity == first.identity && later.addr == first.addr);
        let lives = live.attach(&name, &instances, now);
        let index = LabelIndex::build(instances.iter());
        let endpoints = instances
            .into_iter()
            .zip(lives)
            .map(|(instance, live)| {
                let graced = instance.status == Status::Critical && grace.contains(&instance.identity);
                Endpoint { instance, live, graced }
            })
            .collect();
        Arc::new(Self { name, catalog_index, endpoints, index })
    }

    /// The same picture after the grace is over: everybody as the catalog says.
    #[must_use]
    pub fn without_grace(&self) -> Arc<Self> {
        let instances = self.endpoints.iter().map(|endpoint| &endpoint.instance);
        Arc::new(Self {
            name: Arc::clone(&self.name),
            catalog_index: self.catalog_index,
            index: LabelIndex::build(instances),
            endpoints: self.endpoints.iter().map(|e| Endpoint { graced: false, ..e.clone() }).collect(),
        })
    }

    /// Whether the catalog's statuses are overruled for somebody.
    #[must_use]
    pub fn has_grace(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.graced)
    }

    /// An endpoint by what people see; `None` for an unknown id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<(EndpointIdx, &Endpoint)> {
        let at = self.endpoints.iter().position(|endpoint| &*endpoint.instance.id == id)?;
        Some((at as EndpointIdx, &self.endpoints[at]))
    }
}

/// All services of the catalog. Cloning and changing it shares every part that stays.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    services: Vec<Arc<ServiceSnapshot>>,
}

impl Snapshot {
    /// A snapshot of these services; of two with one name the later wins.
    #[must_use]
    pub fn new(services: impl IntoIterator<Item = Arc<ServiceSnapshot>>) -> Self {
        Self::default().with_services(services, &[])
    }

    /// All services in name order.
    #[must_use]
    pub fn services(&self) -> &[Arc<ServiceSnapshot>] {
        &self.services
    }

    /// One service; `None` when the catalog does not know it.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<ServiceSnapshot>> {
        self.services.binary_search_by(|service| (*service.name).cmp(name)).ok().map(|at| &self.services[at])
    }

    /// The same with one service added or replaced.
    #[must_use]
    pub fn with_service(&self, service: Arc<ServiceSnapshot>) -> Self {
        self.with_services([service], &[])
    }

    /// The same without one service.
    #[must_use]
    pub fn without_service(&self, name: &Text) -> Self {
        self.with_services([], std::slice::from_ref(name))
    }

    /// The same with these services added or replaced and those gone, in one copy of the list.
    #[must_use]
    pub fn with_services(&self, changed: impl IntoIterator<Item = Arc<ServiceSnapshot>>, gone: &[Text]) -> Self {
        let mut services = self.services.clone();
        let mut added = Vec::new();
        for service in changed {
            match services.binary_search_by(|other| other.name.cmp(&service.name)) {
                Ok(at) => services[at] = service,
                Err(_) => added.push(service),
            }
        }
        if !added.is_empty() {
            services.extend(added);
            services.sort_by(|a, b| a.name.cmp(&b.name));
            services = keep_last_of_each_name(services);
        }
        if !gone.is_empty() {
            services.retain(|service| !gone.contains(&service.name));
        }
        Self { services }
    }
}

fn keep_last_of_each_name(sorted: Vec<Arc<ServiceSnapshot>>) -> Vec<Arc<ServiceSnapshot>> {
    let mut kept: Vec<Arc<ServiceSnapshot>> = Vec::with_capacity(sorted.len());
    for service in sorted {
        match kept.last_mut() {
            Some(last) if last.name == service.name => *last = service,
            _ => kept.push(service),
        }
    }
    kept
}
