//! Active checks, run from the control plane. An answer enters by the same door as passive evidence.

pub mod probe;
pub mod schedule;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::health::check::Verdict;
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};
use crate::observe::clock::Clock;
use crate::observe::metrics::Metrics;
use crate::observe::names;
use crate::observe::transitions::Transitions;
use probe::CheckFailure;
use schedule::{Schedule, Target};

/// Checks that run at the same time, over all services.
const AT_ONCE: usize = 256;

/// The active checks of all services whose rule file has one.
pub struct Checks {
    table: Arc<ArcSwap<Table>>,
    generation: watch::Receiver<u64>,
    clock: Clock,
    transitions: Transitions,
    metrics: Arc<Metrics>,
    schedule: Schedule,
    luck: Draw,
}

impl Checks {
    /// Checks over the published tables.
    #[must_use]
    pub fn new(
        table: Arc<ArcSwap<Table>>,
        generation: watch::Receiver<u64>,
        clock: Clock,
        transitions: Transitions,
        metrics: Arc<Metrics>,
    ) -> Self {
        let luck = Draw(RandomState::new().build_hasher().finish());
        Self { table, generation, clock, transitions, metrics, schedule: Schedule::default(), luck }
    }

    /// Runs until the publisher is gone.
    pub async fn run(mut self) {
        let mut running: JoinSet<(Target, Result<(), CheckFailure>)> = JoinSet::new();
        self.follow_table();
        loop {
            while running.len() < AT_ONCE {
                let Some(target) = self.schedule.take_due(self.clock.now()) else { break };
                running.spawn(async move {
                    let answer = probe::run(&target.check, target.endpoint.instance.addr).await;
                    (target, answer)
                });
            }
            let next = self.schedule.next().filter(|_| running.len() < AT_ONCE);
            tokio::select! {
                changed = self.generation.changed() => match changed {
                    Ok(()) => self.follow_table(),
                    Err(_) => return,
                },
                Some(ended) = running.join_next() => match ended {
                    Ok((target, answer)) => self.finished(&target, &answer),
                    // Only a panic in the probe: its endpoint is checked again when the table next changes.
                    Err(error) => tracing::error!(target: "pointsman::checks", %error, "an active check failed in itself"),
                },
                () = until(next, self.clock) => {}
            }
        }
    }

    fn follow_table(&mut self) {
        self.generation.borrow_and_update();
        let table = self.table.load();
        let mut targets = Vec::new();
        for (file, pools) in table.router.files.iter().zip(&table.files) {
            let Some(check) = &file.check else { continue };
            let (check, eject) = (Arc::new(check.clone()), Arc::new(file.eject.clone()));
            targets.extend(pools.endpoints().iter().map(|endpoint| Target {
                endpoint: endpoint.clone(),
                check: Arc::clone(&check),
                eject: Arc::clone(&eject),
            }));
        }
        self.schedule.reconcile(targets, self.clock.now());
    }

    fn finished(&mut self, target: &Target, answer: &Result<(), CheckFailure>) {
        let (now, passed) = (self.clock.now(), answer.is_ok());
        let luck = Draw(self.luck.advance());
        let Target { endpoint, check, eject } = target;
        let transition = endpoint.live.record_check(passed, now, check, eject, luck);
        let agrees = matches!((endpoint.live.verdict(), passed), (Verdict::Passing, true) | (Verdict::Failing, false));
        let result = if passed { "passed" } else { "failed" };
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
