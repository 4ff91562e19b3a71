//! The publisher's loop: inputs in, tables out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::candidate::{Beside, NewCandidate};
use super::grace::Graces;
use crate::catalog::{CatalogUpdate, ServiceState};
use crate::engine::health::{Kind, Transition};
use crate::engine::label::Text;
use crate::engine::route::Router;
use crate::engine::snapshot::diff::diff;
use crate::engine::snapshot::grace::last_instance_grace;
use crate::engine::snapshot::{Endpoint, LiveSet, ServiceSnapshot, Snapshot};
use crate::engine::table::{Table, TableError};
use crate::engine::time::Millis;
use crate::observe::clock::Clock;
use crate::observe::events::{self, Events, Report};
use crate::observe::metrics::Metrics;
use crate::observe::names;
use crate::observe::shadow::Slot;
use crate::observe::transitions::{Moved, event_of, reason_label};

/// The cause of a publication that puts other rules in force.
const RULES: &str = "rules";

/// More changes of one kind in one service are told in one event.
const TOLD_ONE_BY_ONE: usize = 20;

/// How often live state of instances that left long ago is dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// New rules, already compiled. Answered once the table follows them, or with why it cannot.
#[derive(Debug)]
pub struct NewRules {
    /// As used.
    pub router: Arc<Router>,
    /// Gets the generation that first follows them.
    pub done: oneshot::Sender<Result<u64, TableError>>,
}

/// Where everybody else reads the table.
#[derive(Clone, Debug)]
pub struct Published {
    /// The table in force.
    pub table: Arc<ArcSwap<Table>>,
    /// Its generation; changes after the table does.
    pub generation: watch::Receiver<u64>,
    /// The shadow rules' table beside it.
    pub candidate: Slot,
}

/// What the publisher listens to.
#[derive(Debug)]
pub struct Inputs {
    /// Whole states of services, in arrival order.
    pub catalog: mpsc::Receiver<CatalogUpdate>,
    /// Endpoints whose health has moved.
    pub moved: mpsc::UnboundedReceiver<Moved>,
    /// Rules.
    pub rules: mpsc::Receiver<NewRules>,
    /// Shadow rules.
    pub candidates: mpsc::Receiver<NewCandidate>,
}

/// The only writer of the table.
pub struct Publisher {
    table: Arc<ArcSwap<Table>>,
    beside: Beside,
    generation: watch::Sender<u64>,
    lives: LiveSet,
    graces: Graces,
    clock: Clock,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    /// Catalog states that wait for the window to end.
    waiting: BTreeMap<Text, CatalogUpdate>,
    /// The first catalog change is published at once; those of the time after it go together.
    window: Duration,
    /// Catalog changes before this moment wait for it.
    window_ends: Option<Instant>,
    /// When loads that wait for `failback` may rise.
    due: Option<Instant>,
}

impl Publisher {
    /// A publisher that starts from the given table; catalog changes within `window` (100 ms) go together.
    #[must_use]
    pub fn new(
        table: Table,
        window: Duration,
        last_instance_grace: Duration,
        clock: Clock,
        events: Arc<Events>,
        metrics: Arc<Metrics>,
    ) -> (Self, Published) {
        let generation = watch::Sender::new(table.generation);
        let mut lives = LiveSet::default();
        follow_holds(&mut lives, &table.router);
        let table = Arc::new(ArcSwap::from_pointee(table));
        let beside = Beside::default();
        let (candidate, subscribed) = (beside.slot(), generation.subscribe());
        let published = Published { table: Arc::clone(&table), generation: subscribed, candidate };
        let publisher = Self {
            table,
            beside,
            generation,
            lives,
            graces: Graces::new(last_instance_grace),
            clock,
            events,
            metrics,
            waiting: BTreeMap::new(),
            window,
            window_ends: None,
            due: None,
        };
        (publisher, published)
    }

    /// Publishes until the rules' side is dropped.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut catalog_open = true;
        loop {
            let window = self.window_ends.filter(|_| !self.waiting.is_empty());
            let grace = self.graces.next();
            tokio::select! {
                biased;
                new = inputs.rules.recv() => match new {
                    Some(NewRules { router, done }) => {
                        // A caller that went away will never read the answer.
                        let _ = done.send(self.follow_rules(router));
                    }
                    None => return,
                },
                Some(NewCandidate { router, done }) = inputs.candidates.recv() => {
                    // A caller that went away will never read the answer.
                    let _ = done.send(self.beside.replace(&self.table.load(), router, self.clock.now()));
                }
                Some(moved) = inputs.moved.recv() => self.follow_health(moved, &mut inputs.moved),
                () = until(window) => self.flush(),
                () = until(grace) => self.end_graces(),
                () = until(self.due) => self.follow_time(),
                update = inputs.catalog.recv(), if catalog_open => match update {
                    Some(update) => self.take(update),
                    None => catalog_open = false,
                },
                _ = sweep.tick() => self.lives.sweep(self.clock.now()),
            }
        }
    }

    /// Takes a catalog state: published at once, or with the others of the window.
    fn take(&mut self, update: CatalogUpdate) {
        self.waiting.insert(update.service().clone(), update);
        if self.window_ends.is_none_or(|ends| ends <= Instant::now()) {
            self.flush();
        }
    }

    /// Publishes the catalog states that wait.
    fn flush(&mut self) {
        self.window_ends = Some(Instant::now() + self.window);
        let started = Instant::now();
        let current = self.table.load_full();
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (name, update) in std::mem::take(&mut self.waiting) {
            match update {
                CatalogUpdate::Gone(_) => {
                    self.graces.grant(&name, false, started);
                    self.lives.leave(&name, self.clock.now());
                    gone.push(name);
                }
                CatalogUpdate::Service(state) => changed.push(self.snapshot(&current, state)),
            }
        }
        self.publish_services(&current, changed, &gone, started);
    }

    fn snapshot(&mut self, current: &Table, state: ServiceState) -> Arc<ServiceSnapshot> {
        let graced: BTreeSet<Text> = current
            .snapshot
            .service(&state.name)
            .map_or_else(BTreeSet::new, |before| last_instance_grace(before, &state.instances).into_iter().collect());
        if current.snapshot.service(&state.name).is_none()
            && let Some(hold) = current.router.stars_hold_new(&state.name)
        {
            // A file for every service is about to take it up.
            self.lives.set_hold_new(&state.name, hold);
        }
        let granted = self.graces.grant(&state.name, !graced.is_empty(), Instant::now());
        let graced = if granted { graced } else { BTreeSet::new() };
        ServiceSnapshot::build_with_grace(
            state.name,
            state.index,
            state.instances,
            &graced,
            &mut self.lives,
            self.clock.now(),
        )
    }

    /// Publishes the services whose grace is over as the catalog has them.
    fn end_graces(&mut self) {
        let started = Instant::now();
        let current = self.table.load_full();
        let over = self.graces.over(started);
        let changed: Vec<_> = over
            .iter()
            .filter_map(|name| current.snapshot.service(name))
            .map(|service| service.without_grace())
            .collect();
        self.publish_services(&current, changed, &[], started);
    }

    fn publish_services(
        &mut self,
        current: &Table,
        changed: Vec<Arc<ServiceSnapshot>>,
        gone: &[Text],
        started: Instant,
    ) {
        let (table, errors) = current.with_services(current.generation + 1, changed, gone, self.clock.now());
        for error in errors {
            let reason = format!("a file keeps the pools it had: {error}");
            self.events.record(Report::new(events::Kind::Fault, reason).generation(table.generation));
        }
        self.tell_changes(&current.snapshot, &table.snapshot);
        self.publish(table, "catalog", started);
    }

    fn follow_rules(&mut self, router: Arc<Router>) -> Result<u64, TableError> {
        let started = Instant::now();
        let current = self.table.load_full();
        let table = current.with_router(current.generation + 1, router, self.clock.now())?;
        follow_holds(&mut self.lives, &table.router);
        self.publish(table, RULES, started);
        Ok(self.table.load().generation)
    }

    /// Takes every endpoint that has moved by now and republishes the pools that hold one of them.
    fn follow_health(&mut self, first: Moved, queue: &mut mpsc::UnboundedReceiver<Moved>) {
        let started = Instant::now();
        let mut lives = Vec::new();
        let mut next = Some(first);
        while let Some(Moved { endpoint, transition }) = next {
            // Before the state is read: a move after this marks it dirty again.
            endpoint.live.clear_dirty();
            if let Some(transition) = transition {
                self.tell_transition(&endpoint, &transition);
            }
            lives.push(endpoint.live);
            next = queue.try_recv().ok();
        }
        let current = self.table.load_full();
        let table = current.with_health(current.generation + 1, &lives, self.clock.now());
        self.publish(table, "health", started);
    }

    /// Publishes the levels that have been back for long enough.
    fn follow_time(&mut self) {
        let started = Instant::now();
        let current = self.table.load_full();
        let table = current.with_time(current.generation + 1, self.clock.now());
        self.publish(table, "failback", started);
    }

    fn tell_transition(&self, endpoint: &Endpoint, transition: &Transition) {
        self.events.record(event_of(endpoint, transition));
        let service = &*endpoint.instance.service;
        match transition.kind {
            Kind::Ejected { .. } | Kind::CheckFailing => {
                self.metrics.count(&names::EJECTIONS, &[service, reason_label(&transition.reason)], 1);
            }
            Kind::Readmitted | Kind::CheckPassing => self.metrics.count(&names::READMISSIONS, &[service], 1),
            Kind::Probing => {}
        }
    }

    /// Says who came, went and changed; a service that is seen for the first time is one event, so that a start over
    /// thousands of services can be read.
    fn tell_changes(&self, before: &Snapshot, after: &Snapshot) {
        for change in diff(before, after) {
            let first_seen = before.service(&change.service).is_none();
            for (kind, ids, words) in [
                (events::Kind::InstanceAdded, &change.added, "in the catalog"),
                (events::Kind::InstanceRemoved, &change.removed, "no longer in the catalog"),
                (events::Kind::InstanceChanged, &change.changed, "status, weight or labels changed"),
            ] {
                if ids.len() > TOLD_ONE_BY_ONE || (first_seen && !ids.is_empty()) {
                    let reason = format!("{} instances: {words}", ids.len());
                    self.events.record(Report::new(kind, reason).service(&change.service));
                    continue;
                }
                for id in ids {
                    self.events.record(Report::new(kind, words).service(&change.service).instance(id));
                }
            }
        }
    }

    /// Says where a pool's cap keeps an endpoint in traffic against the verdict.
    fn tell_refused(&self, before: &Table, after: &Table) {
        for refusal in after.newly_refused(before) {
            let instance = &after.endpoint(refusal.file, refusal.endpoint).instance;
            let pool = &after.pool(refusal.file, refusal.slot).name;
            let reason = format!("pool {pool} keeps it in traffic: its cap on ejections is reached");
            let report = Report::new(events::Kind::EjectRefused, reason);
            self.events.record(report.service(&instance.service).instance(&instance.id));
            self.metrics.count(&names::EJECT_REFUSED, &[&instance.service], 1);
        }
    }

    fn tell_panic(&self, before: &Table, after: &Table) {
        for (file, slot) in after.newly_in_panic(before) {
            let pool = &after.pool(file, slot).name;
            let reason =
                format!("pool {pool} has nobody routable: requests that nothing else takes go to anybody in it");
            let service = &after.router.files[file as usize].service;
            self.events.record(Report::new(events::Kind::PanicRouting, reason).service(service));
        }
    }

    fn publish(&mut self, table: Table, cause: &'static str, started: Instant) {
        let generation = table.generation;
        let before = self.table.load();
        self.tell_refused(&before, &table);
        self.tell_panic(&before, &table);
        for error in self.beside.follow(&before, &table, cause != RULES, self.clock.now()) {
            let reason = format!("a shadow file keeps the pools it had: {error}");
            self.events.record(Report::new(events::Kind::Fault, reason).generation(generation));
        }
        drop(before);
        // A millisecond later, for the clock counts whole ones.
        let wait = |due: Millis| Duration::from_millis(due.since(self.clock.now()) + 1);
        self.due = table.due().map(|due| Instant::now() + wait(due));
        self.table.store(Arc::new(table));
        self.generation.send_replace(generation);
        self.metrics.time(&names::PUBLISH_SECONDS, cause, started.elapsed());
        self.metrics.gauge(&names::TABLE_GENERATION, &[], generation as f64);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whose new endpoints wait for their first check, as these rules say.
fn follow_holds(lives: &mut LiveSet, router: &Router) {
    for file in &router.files {
        lives.set_hold_new(&file.service, file.check.as_ref().is_some_and(|check| check.hold_new));
    }
}
