//! Active checks, run from the control plane. An answer enters by the same door as passive evidence.

mod certificate;
mod command;
mod grpc;
mod kept;
pub mod probe;
mod request;
mod running;
pub mod schedule;
#[cfg(test)]
mod schedule_tests;
mod tcp;
mod trials;
mod turns;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;

use crate::engine::health::Evidence;
use crate::engine::health::check::{Failure, Verdict};
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::policy::{Check, Probe};
use crate::engine::snapshot::Endpoint;
use crate::engine::table::{Ground, Table};
use crate::engine::time::{Draw, Millis};
use crate::observe::clock::Clock;
use crate::observe::metrics::Metrics;
use crate::observe::names;
use crate::observe::transitions::Transitions;
use crate::upstream::{Dial, Trusts};
use kept::{Keep, Rest, Way};
use probe::{Asked, CheckFailure, On, Reuse};
use running::Running;
use schedule::{Means, Schedule, Target};
use trials::{Trial, Trials};

/// Checks that run at the same time, over all services, commands not counted.
const AT_ONCE: usize = 512;
/// Checks that run beside those, of instances that did not answer the last one in time.
const SILENT_AT_ONCE: usize = 256;
/// Checks that run beside those, of instances that have not been asked before.
const FIRST_AT_ONCE: usize = 256;
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
    /// What the schedule was made from, and the silent services among them.
    followed: Option<(Ground, BTreeSet<Text>)>,
    kept: Keep,
    luck: Draw,
    speech: Speech,
}

/// How instances are spoken to where their rules leave it open, and whom we believe.
#[derive(Clone, Debug)]
pub struct Speech {
    /// TLS towards instances.
    pub trusts: Arc<Trusts>,
    /// The key of the label that names an instance's protocol.
    pub protocol_label: Box<str>,
    /// The most connections that checks leave open between them; 0: none.
    pub kept: usize,
}

/// The checks under way, by what they take.
struct Places {
    sockets: Running<(Means, Target), Answered>,
    programs: Running<(Means, Target), Answered>,
    silent: Running<(Means, Target), Answered>,
    first: Running<(Means, Target), Answered>,
}

impl Places {
    fn of(&self, means: Means) -> &Running<(Means, Target), Answered> {
        match means {
            Means::Socket => &self.sockets,
            Means::Program => &self.programs,
            Means::Silent => &self.silent,
            Means::First => &self.first,
        }
    }

    fn of_mut(&mut self, means: Means) -> &mut Running<(Means, Target), Answered> {
        match means {
            Means::Socket => &mut self.sockets,
            Means::Program => &mut self.programs,
            Means::Silent => &mut self.silent,
            Means::First => &mut self.first,
        }
    }
}

/// The answer, and the connection that may be kept; or a panic in the asking.
type Ended = ((Means, Target), Result<Answered, JoinError>);
/// What came of a check, with the connection that it left.
type Answered = (Result<(), CheckFailure>, On, Option<Rest>);

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
        speech: Speech,
    ) -> Self {
        let luck = Draw(RandomState::new().build_hasher().finish());
        let (schedule, followed, kept) = (Schedule::default(), None, Keep::at_most(speech.kept));
        Self { table, generation, stale, clock, transitions, metrics, schedule, followed, kept, luck, speech }
    }

    /// Runs until the publisher is gone.
    pub async fn run(mut self) {
        let mut places = Places {
            sockets: Running::at_most(AT_ONCE),
            programs: Running::at_most(COMMANDS_AT_ONCE),
            silent: Running::at_most(SILENT_AT_ONCE),
            first: Running::at_most(FIRST_AT_ONCE),
        };
        let mut trials = Trials::default();
        self.follow_table();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.start_due(&mut places);
            tokio::select! {
                changed = self.generation.changed() => match changed {
                    Ok(()) => self.follow_table(),
                    Err(_) => return,
                },
                Ok(()) = self.stale.changed() => self.follow_table(),
                Some(ended) = places.sockets.next() => self.ended(ended),
                Some(ended) = places.programs.next() => self.ended(ended),
                Some(ended) = places.silent.next() => self.ended(ended),
                Some(ended) = places.first.next() => self.ended(ended),
                _ = looks.tick() => trials.look(&self.table.load(), &self.stale.borrow(), self.clock.now()),
                Some((endpoint, ended)) = trials.next() => self.tried(&endpoint, ended),
                () = until(next, self.clock) => {}
            }
        }
    }

    /// Begins the checks whose time has come and for which there is a place; the moment of the next one, if it does not
    /// wait for a place.
    fn start_due(&mut self, places: &mut Places) -> Option<Millis> {
        loop {
            let room = |means| places.of(means).has_room();
            let now = self.clock.now();
            let Some((means, target)) = self.schedule.take_due(now, room) else { return self.schedule.next(room) };
            let Target { check, endpoint, upstream, .. } = target.clone();
            let Speech { trusts, protocol_label, .. } = &self.speech;
            let dial = Dial::of(&endpoint.instance, &upstream, trusts);
            let protocol = dial.protocol(&endpoint.instance, &upstream, protocol_label);
            let way = Way { check, dial, protocol };
            let rest = self.kept.take(&endpoint.live, &way, now);
            places.of_mut(means).begin((means, target), answered(endpoint.instance, way, rest, now));
        }
    }

    fn follow_table(&mut self) {
        self.generation.borrow_and_update();
        let table = self.table.load();
        let stale = self.stale.borrow_and_update().clone();
        if self.followed.as_ref().is_some_and(|(ground, silent)| ground.is_of(&table) && *silent == stale) {
            return;
        }
        // What is asked of instances whose catalog is silent, where the rules ask nothing.
        let unasked = Check::new(Check::CONNECTS);
        let mut targets = Vec::new();
        for (file, pools) in table.router.files.iter().zip(&table.files) {
            let instead = stale.contains(&file.service).then_some(&unasked);
            let Some(check) = file.check.as_ref().or(instead) else { continue };
            let (check, eject) = (Arc::new(check.clone()), Arc::new(file.eject.clone()));
            let upstream = Arc::new(file.upstream.clone());
            targets.extend(pools.endpoints().iter().map(|endpoint| Target {
                endpoint: endpoint.clone(),
                check: Arc::clone(&check),
                eject: Arc::clone(&eject),
                upstream: Arc::clone(&upstream),
            }));
        }
        for Target { endpoint, .. } in self.schedule.reconcile(targets, self.clock.now()) {
            if endpoint.live.forget_verdict() {
                self.transitions.touched(&endpoint);
            }
        }
        let Self { kept, schedule, .. } = self;
        kept.retain(|id| schedule.contains(id));
        self.followed = Some((table.ground(), stale));
    }

    /// An address that accepts connections again may be given a request that cannot be repeated; one that does not is
    /// ejected again, and no request was risked.
    fn tried(&mut self, endpoint: &Endpoint, ended: Result<Trial, JoinError>) {
        let Trial { eject, answer } = match ended {
            Ok(trial) => trial,
            // It is asked again at the next look.
            Err(error) => return self.broke(endpoint, &error),
        };
        if let Err(failure) = &answer
            && failure.is_ours()
        {
            return self.unmade(endpoint, failure);
        }
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
                if let Some(transition) = endpoint.live.record(Evidence::Connect, now, &eject, luck) {
                    self.transitions.report(endpoint, transition);
                }
            }
        }
    }

    fn ended(&mut self, ((means, target), ended): Ended) {
        let (now, luck) = (self.clock.now(), Draw(self.luck.advance()));
        // Its check was taken away meanwhile: a verdict now would never be revised.
        let id = target.endpoint.live.id;
        let is_checked = self.schedule.contains(id);
        let (in_doubt, rest) = match ended {
            Ok((Err(failure), ..)) if failure.is_ours() => {
                self.unmade(&target.endpoint, &failure);
                (false, None)
            }
            Ok((answer, on, rest)) => {
                self.count_connection(&target, on);
                (is_checked && self.judge(&target, &answer, now, luck), rest)
            }
            // A fault of ours says nothing of the instance.
            Err(error) => {
                self.broke(&target.endpoint, &error);
                (false, None)
            }
        };
        let next = self.schedule.finished((means, &target), in_doubt, now, luck);
        if let (false, Some(next), Some(rest)) = (in_doubt, next, rest) {
            self.kept.put(id, rest, next);
        }
    }

    /// Counts which connection a check was made on that might have kept one.
    fn count_connection(&self, Target { endpoint, check, .. }: &Target, on: On) {
        if !matches!(check.probe, Probe::Http { .. } | Probe::Grpc { .. }) {
            return;
        }
        let how = match on {
            On::Fresh => "fresh",
            On::Kept => "kept",
            On::Again => "again",
        };
        self.metrics.count(&names::CHECK_CONNECTIONS, &[&endpoint.instance.service, how], 1);
    }

    /// Takes over what an instance answered; whether that contradicts its verdict.
    fn judge(&self, target: &Target, answer: &Result<(), CheckFailure>, now: Millis, luck: Draw) -> bool {
        let passed = answer.is_ok();
        let judged = answer.as_ref().copied().map_err(CheckFailure::kind);
        let Target { endpoint, check, eject, .. } = target;
        let transition = endpoint.live.record_check(judged, now, check, eject, luck);
        let result = judged.map_or_else(Failure::word, |()| "passed");
        self.metrics.count(&names::CHECKS, &[&endpoint.instance.service, result], 1);
        if let Err(failure) = answer {
            tracing::debug!(target: "pointsman::checks", service = %endpoint.instance.service,
                instance = %endpoint.instance.id, %failure, "an active check failed");
        }
        if let Some(transition) = transition {
            self.transitions.report(endpoint, transition);
        }
        !matches!((endpoint.live.verdict(), passed), (Verdict::Passing, true) | (Verdict::Failing, false))
    }

    /// A check that could not be made here. It is made again, and the verdict stays.
    fn unmade(&self, endpoint: &Endpoint, failure: &CheckFailure) {
        self.metrics.count(&names::CHECKS, &[&endpoint.instance.service, "unmade"], 1);
        tracing::debug!(target: "pointsman::checks", service = %endpoint.instance.service,
            instance = %endpoint.instance.id, %failure, "an active check could not be made here");
    }

    /// A panic of ours in a check.
    fn broke(&self, endpoint: &Endpoint, error: &JoinError) {
        self.metrics.count(&names::PANICS, &["check"], 1);
        tracing::error!(target: "pointsman::checks", service = %endpoint.instance.service,
            instance = %endpoint.instance.id, %error, "an active check failed in itself, and is made again");
    }
}

/// Makes one check, on what an earlier one left where there is such a thing.
async fn answered(instance: Arc<Instance>, way: Way, rest: Option<Rest>, now: Millis) -> Answered {
    let before = rest.as_ref().map_or((now, 0), |rest| (rest.since, rest.checks));
    let reuse = Reuse { keep: way.may_keep(), kept: rest.map(|rest| rest.kept) };
    let Asked { judged, left, on } = probe::ask(&way.check, &instance, &way.dial, way.protocol, reuse).await;
    let (since, checks) = if on == On::Kept { before } else { (now, 0) };
    (judged, on, left.map(|kept| Rest { kept, way, since, checks: checks + 1 }))
}

async fn until(moment: Option<Millis>, clock: Clock) {
    match moment {
        Some(moment) => tokio::time::sleep(Duration::from_millis(moment.since(clock.now()))).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod tests;
