//! Active checks, run from the control plane. An answer enters by the same door as passive evidence.

mod command;
mod grpc;
mod http1;
pub mod probe;
pub mod schedule;
mod tcp;
mod trials;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::engine::health::Evidence;
use crate::engine::health::check::{Failure, Verdict};
use crate::engine::label::Text;
use crate::engine::policy::{Check, Probe};
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};
use crate::engine::upstream::Upstream;
use crate::observe::clock::Clock;
use crate::observe::metrics::Metrics;
use crate::observe::names;
use crate::observe::transitions::Transitions;
use crate::upstream::{Dial, Trusts};
use probe::CheckFailure;
use schedule::{Schedule, Target};
use trials::{Trial, Trials};

/// Checks that run at the same time, over all services.
const AT_ONCE: usize = 512;
/// Commands that run at the same time.
const COMMANDS_AT_ONCE: usize = 16;
/// How often endpoints are looked for that have waited long for a trial.
const LOOK: Duration = Duration::from_secs(1);

/// The active checks of all services whose rule file has one.
pub struct Checks {
    table: Arc<ArcSwap<Table>>,
    generation: watch::Receiver<u64>,
    /// Services whose catalog has been silent for too long.
    stale: watch::Receiver<BTreeSet<Text>>,
    clock: Clock,
    transitions: Transitions,
    metrics: Arc<Metrics>,
    schedule: Schedule,
    luck: Draw,
    trusts: Arc<Trusts>,
}

impl Checks {
    /// Checks over the published tables: of every service whose rule file has a check, and while the catalog has been
    /// silent about it for too long (`stale`) of any other service as well, by whether its instances accept a
    /// connection (CATALOGS.md E5).
    #[must_use]
    pub fn new(
        table: Arc<ArcSwap<Table>>,
        generation: watch::Receiver<u64>,
        stale: watch::Receiver<BTreeSet<Text>>,
        clock: Clock,
        transitions: Transitions,
        metrics: Arc<Metrics>,
        trusts: Arc<Trusts>,
    ) -> Self {
        let luck = Draw(RandomState::new().build_hasher().finish());
        Self { table, generation, stale, clock, transitions, metrics, schedule: Schedule::default(), luck, trusts }
    }

    /// How the rules in force reach the endpoint.
    fn dial(&self, target: &Target) -> Dial {
        let table = self.table.load();
        let instance = &target.endpoint.instance;
        let file = table.router.files.iter().find(|file| file.service == instance.service);
        let by_label = Upstream::default();
        Dial::of(instance, file.map_or(&by_label, |file| &file.upstream), &self.trusts)
    }

    /// Runs until the publisher is gone.
    pub async fn run(mut self) {
        let mut running: JoinSet<(Target, Result<(), CheckFailure>)> = JoinSet::new();
        self.follow_table();
        let commands = Arc::new(Semaphore::new(COMMANDS_AT_ONCE));
        let mut trials = Trials::default();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while running.len() < AT_ONCE {
                let Some(target) = self.schedule.take_due(self.clock.now()) else { break };
                let dial = self.dial(&target);
                let commands = Arc::clone(&commands);
                running.spawn(async move {
                    let is_command = matches!(target.check.probe, Probe::Command { .. });
                    // The wait for a place is not the instance's; the semaphore is never closed.
                    let _place = if is_command { commands.acquire().await.ok() } else { None };
                    let answer = probe::run(&target.check, &target.endpoint.instance, &dial).await;
                    (target, answer)
                });
            }
            let next = self.schedule.next().filter(|_| running.len() < AT_ONCE);
            tokio::select! {
                changed = self.generation.changed() => match changed {
                    Ok(()) => self.follow_table(),
                    Err(_) => return,
                },
                Ok(()) = self.stale.changed() => self.follow_table(),
                Some(ended) = running.join_next() => match ended {
                    Ok((target, answer)) => self.finished(&target, &answer),
                    // Only a panic in the probe: its endpoint is checked again when the table next changes.
                    Err(error) => tracing::error!(target: "pointsman::checks", %error, "an active check failed in itself"),
                },
                _ = looks.tick() => trials.look(&self.table.load(), &self.stale.borrow(), self.clock.now()),
                Some(ended) = trials.next() => self.tried(&ended),
                () = until(next, self.clock) => {}
            }
        }
    }

    fn follow_table(&mut self) {
        self.generation.borrow_and_update();
        let table = self.table.load();
        let stale = self.stale.borrow_and_update().clone();
        // What is asked of instances whose catalog is silent, where the rules ask nothing.
        let unasked = Check::new(Check::CONNECTS);
        let mut targets = Vec::new();
        for (file, pools) in table.router.files.iter().zip(&table.files) {
            let instead = stale.contains(&file.service).then_some(&unasked);
            let Some(check) = file.check.as_ref().or(instead) else { continue };
            let (check, eject) = (Arc::new(check.clone()), Arc::new(file.eject.clone()));
            targets.extend(pools.endpoints().iter().map(|endpoint| Target {
                endpoint: endpoint.clone(),
                check: Arc::clone(&check),
                eject: Arc::clone(&eject),
            }));
        }
        for Target { endpoint, .. } in self.schedule.reconcile(targets, self.clock.now()) {
            if endpoint.live.forget_verdict() {
                self.transitions.touched(&endpoint);
            }
        }
    }

    /// An address that accepts connections again may be given a request that cannot be repeated; one that does not is
    /// ejected again, and no request was risked.
    fn tried(&mut self, Trial { endpoint, eject, answer }: &Trial) {
        let (now, luck) = (self.clock.now(), Draw(self.luck.advance()));
        self.metrics.count(
            &names::PROBES,
            &[&endpoint.instance.service, if answer.is_ok() { "opened" } else { "failure" }],
            1,
        );
        match answer {
            Ok(()) => {
                endpoint.live.open_trial(now);
            }
            Err(_) => {
                if let Some(transition) = endpoint.live.record(Evidence::Connect, now, eject, luck) {
                    self.transitions.report(endpoint, transition);
                }
            }
        }
    }

    fn finished(&mut self, target: &Target, answer: &Result<(), CheckFailure>) {
        let (now, passed) = (self.clock.now(), answer.is_ok());
        let judged = answer.as_ref().copied().map_err(CheckFailure::kind);
        let luck = Draw(self.luck.advance());
        let Target { endpoint, check, eject } = target;
        let transition = endpoint.live.record_check(judged, now, check, eject, luck);
        let agrees = matches!((endpoint.live.verdict(), passed), (Verdict::Passing, true) | (Verdict::Failing, false));
        let result = judged.map_or_else(Failure::word, |()| "passed");
        self.metrics.count(&names::CHECKS, &[&endpoint.instance.service, result], 1);
        if let Err(failure) = answer {
            tracing::debug!(target: "pointsman::checks", service = %endpoint.instance.service,
                instance = %endpoint.instance.id, %failure, "an active check failed");
        }
        if let Some(transition) = transition {
            self.transitions.report(endpoint, transition);
        }
        self.schedule.finished(endpoint.live.id, !agrees, now, luck);
    }
}

async fn until(moment: Option<Millis>, clock: Clock) {
    match moment {
        Some(moment) => tokio::time::sleep(Duration::from_millis(moment.since(clock.now()))).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::diagnostic::Source;
    use crate::engine::locality::Place;
    use crate::engine::route::Router;
    use crate::engine::rules::parse_files;
    use crate::engine::snapshot::Snapshot;
    use crate::engine::testing::{instance, service};
    use crate::observe::metrics::Settings;

    const RULES: &str = "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";

    fn table(port: u16) -> Table {
        let (set, _) = parse_files(&[Source::new("web.yaml", RULES)]);
        let router = Arc::new(Router::compile(&set).unwrap());
        let web = service("web", vec![Arc::new(instance("web", "web-1", port, &[]))]);
        Table::build(1, Snapshot::new([web]), router, Place::default(), Millis(0)).unwrap()
    }

    #[tokio::test]
    async fn a_service_that_the_catalog_is_silent_about_is_checked_until_it_speaks_again() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let table = Arc::new(ArcSwap::from_pointee(table(closed)));
        let live = Arc::clone(&table.load().endpoint(0, 0).live);
        let (_publisher, generation) = watch::channel(1);
        let (silence, stale) = watch::channel(BTreeSet::new());
        let (transitions, mut moved) = Transitions::channel();
        let metrics = Metrics::new(1, Settings::default());
        let checks = Checks::new(table, generation, stale, Clock::start(), transitions, metrics, Arc::default());
        let running = tokio::spawn(checks.run());

        silence.send_replace(BTreeSet::from(["web".into()]));
        let failing = tokio::time::timeout(Duration::from_secs(10), moved.recv()).await.unwrap().unwrap();
        assert_eq!(live.verdict(), Verdict::Failing);
        failing.endpoint.live.clear_dirty();

        silence.send_replace(BTreeSet::new());
        let forgotten = tokio::time::timeout(Duration::from_secs(10), moved.recv()).await.unwrap().unwrap();
        assert!(forgotten.transition.is_none());
        assert_eq!((live.verdict(), live.available()), (Verdict::Unknown, true));
        running.abort();
    }
}
