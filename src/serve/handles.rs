//! What the admin side and the metrics read and move of other parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::admin::handles::{Action, ActionError, Actions, CatalogView};
use crate::catalog::{self, CatalogStatus, Note};
use crate::engine::health::State;
use crate::engine::health::check::Verdict;
use crate::engine::instance::Status;
use crate::engine::snapshot::{Endpoint, ServiceSnapshot};
use crate::engine::table::Table;
use crate::observe::clock::Clock;
use crate::observe::events::{Events, Kind, Report};
use crate::observe::metrics::{OTHER, Samples, Source};
use crate::observe::names;
use crate::observe::transitions::Transitions;

/// Operators' actions on instances, by the same door as evidence.
#[derive(Debug)]
pub struct Operators {
    /// The table in force.
    pub table: Arc<ArcSwap<Table>>,
    /// The process's clock.
    pub clock: Clock,
    /// To the publisher.
    pub transitions: Transitions,
    /// Drains are told here; ejections by whoever publishes them.
    pub events: Arc<Events>,
}

impl Actions for Operators {
    fn act(&self, service: &str, id: &str, action: Action) -> Result<bool, ActionError> {
        let table = self.table.load();
        let known = table.snapshot.service(service).ok_or(ActionError::NoService)?;
        let (_, endpoint) = known.by_id(id).ok_or(ActionError::NoInstance)?;
        let (live, now) = (&endpoint.live, self.clock.now());
        let transition = match action {
            Action::Eject(ms) => live.eject(now, ms.unwrap_or_else(|| longest_ejection(&table, service))),
            Action::Readmit => live.readmit(now),
            Action::Drain => return Ok(self.drain(endpoint, true)),
            Action::Undrain => return Ok(self.drain(endpoint, false)),
        };
        let changed = transition.is_some();
        if let Some(transition) = transition {
            self.transitions.report(endpoint, transition);
        }
        Ok(changed)
    }
}

impl Operators {
    fn drain(&self, endpoint: &Endpoint, drained: bool) -> bool {
        let changed = endpoint.live.set_drained(drained);
        if changed {
            let kind = if drained { Kind::Drained } else { Kind::Undrained };
            let instance = &endpoint.instance;
            let report = Report::new(kind, "an operator asked").service(&instance.service).instance(&instance.id);
            self.events.record(report);
            self.transitions.touched(endpoint);
        }
        changed
    }
}

fn longest_ejection(table: &Table, service: &str) -> u64 {
    let file = table.router.files.iter().find(|file| &*file.service == service);
    file.map_or_else(|| crate::engine::policy::Eject::default().max_ejection_time, |file| file.eject.max_ejection_time)
}

/// The catalog's state for people, and what releases its guard.
#[derive(Debug)]
pub struct CatalogDesk {
    /// Figures.
    pub status: Arc<CatalogStatus>,
    /// The guard.
    pub handle: catalog::Handle,
}

impl CatalogView for CatalogDesk {
    fn status(&self) -> Value {
        let sources: Vec<Value> = self
            .status
            .sources()
            .into_iter()
            .map(|(name, figures)| json!({"source": name, "figures": figures}))
            .collect();
        let services: Vec<Value> = self
            .status
            .services()
            .into_iter()
            .map(|(service, source, figures)| {
                json!({"service": &*service, "source": source, "age_ms": figures.age_ms(), "figures": figures})
            })
            .collect();
        json!({"sources": sources, "services": services})
    }

    fn accept(&self, service: &str) -> Result<usize, ActionError> {
        if !self.status.services().iter().any(|(name, _, _)| &**name == service) {
            return Err(ActionError::NoService);
        }
        match self.handle.accept(service) {
            0 => Err(ActionError::NothingHeld),
            accepted => Ok(accepted),
        }
    }
}

/// The catalog's figures, read at each scrape.
#[derive(Debug)]
pub struct CatalogFigures(pub Arc<CatalogStatus>);

impl Source for CatalogFigures {
    fn collect(&self, out: &mut Samples) {
        for (service, source, figures) in self.0.services() {
            let labels = [source.as_str(), &service];
            if let Some(age) = figures.age_ms() {
                out.gauge(&names::CATALOG_AGE, &labels, age as f64 / 1e3);
            }
            out.gauge(&names::CATALOG_INDEX, &labels, figures.index as f64);
            let held = match figures.note {
                Note::Trusted => 0,
                Note::Held { instances, .. } => instances,
            };
            out.gauge(&names::CATALOG_HELD, &labels, held as f64);
            let changed = figures.requests.saturating_sub(figures.idle_wakes);
            out.counter(&names::CATALOG_WAKEUPS, &[&source, &service, "true"], changed);
            out.counter(&names::CATALOG_WAKEUPS, &[&source, &service, "false"], figures.idle_wakes);
            for (status, count) in Status::ALL.iter().zip(figures.instances) {
                out.gauge(&names::CATALOG_INSTANCES, &[&source, &service, status.word()], count as f64);
            }
        }
        for (source, figures) in self.0.sources() {
            let counters = figures.counters;
            out.counter(&names::CATALOG_BYTES, &[&source], counters.bytes);
            for (kind, count) in [
                ("transport", counters.failures),
                ("congested", counters.congested),
                ("forbidden", counters.forbidden),
                ("server", counters.server_errors),
            ] {
                out.counter(&names::CATALOG_ERRORS, &[&source, kind], count);
            }
            for (kind, count) in [
                ("reset", counters.resets),
                ("lower_index", counters.lower_index),
                ("held", counters.held),
                ("accepted_after_hold", counters.accepted_after_hold),
                ("confirmed", counters.confirmed),
                ("skipped", counters.skipped),
            ] {
                out.counter(&names::CATALOG_EVENTS, &[&source, kind], count);
            }
        }
    }
}

/// Pools as published, read at each scrape.
#[derive(Debug)]
pub struct PoolFigures(pub Arc<ArcSwap<Table>>);

impl Source for PoolFigures {
    fn collect(&self, out: &mut Samples) {
        let table = self.0.load();
        let (mut seen, mut services) = (BTreeMap::new(), BTreeMap::new());
        for (file, pools) in table.router.files.iter().zip(&table.files) {
            for pool in pools.pools.iter().filter(|pool| pool.variant.is_empty()) {
                let counts = (pool.routable, pool.members.len(), pool.ejected.len());
                seen.insert((&file.service, &pool.name), counts);
            }
            if let Some(service) = &pools.service {
                services.insert(&file.service, service);
            }
        }
        for (name, service) in services {
            for ((version, state), count) in by_version(service) {
                out.gauge(&names::ENDPOINTS, &[name, version, state], f64::from(count));
            }
        }
        for ((service, pool), (routable, members, ejected)) in seen {
            out.gauge(&names::EJECTED, &[service, pool], ejected as f64);
            out.gauge(&names::ROUTABLE, &[service, pool], f64::from(routable));
            out.gauge(&names::MEMBERS, &[service, pool], members as f64);
        }
    }
}

/// Versions of one service that have figures of their own; the others go together.
const VERSIONS: usize = 20;

/// Endpoints by version and live state.
fn by_version(service: &ServiceSnapshot) -> BTreeMap<(&str, &'static str), u32> {
    let known: BTreeSet<&str> = service.endpoints.iter().map(version).collect();
    let shown: BTreeSet<&str> = known.into_iter().take(VERSIONS).collect();
    let mut counts = BTreeMap::new();
    for endpoint in &service.endpoints {
        let version = Some(version(endpoint)).filter(|version| shown.contains(version)).unwrap_or(OTHER);
        *counts.entry((version, state_word(endpoint))).or_insert(0) += 1;
    }
    counts
}

fn version(endpoint: &Endpoint) -> &str {
    endpoint.instance.labels.value("version").unwrap_or_default()
}

/// What keeps an endpoint out of traffic by our own knowledge, or `available`.
fn state_word(endpoint: &Endpoint) -> &'static str {
    let live = &endpoint.live;
    match live.state() {
        _ if live.drained() => "drained",
        _ if live.verdict() == Verdict::Failing => "check_failing",
        _ if live.awaits_check() => "awaits_check",
        State::Ejected { .. } => "ejected",
        State::Probing { .. } => "probing",
        State::Healthy { .. } => "available",
    }
}
