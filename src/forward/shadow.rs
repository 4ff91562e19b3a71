//! The shadow rules' decision beside the live one. What repeats is known by its shape: a request costs one more
//! decision, one look-up and three plain stores; only disagreements are copied.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwapOption, Cache};
use rustc_hash::FxHashMap;

use super::exchange::Exchange;
use super::view::View;
use crate::dry_run::diff::{Comparison, Stop};
use crate::engine::policy::WHOLE;
use crate::engine::request::RequestView;
use crate::engine::route::{Decision, Router, Scratch, Shape, decide};
use crate::engine::table::{FilePools, Table};
use crate::engine::time::Draw;
use crate::engine::trace::NoTrace;
use crate::observe::access_log::{Answer, Place, Record};
use crate::observe::metrics::{Counter, WorkerMetrics};
use crate::observe::names;
use crate::observe::shadow::{Candidate, Cells, Class, Disagreement, Figures, ShadowLog, Slot};

/// What all workers' shadows are made from.
#[derive(Clone, Debug)]
pub struct Shadowing {
    /// Where the shadow rules are published.
    pub slot: Slot,
    /// Where disagreements go.
    pub log: ShadowLog,
    /// Requests that are compared, per million.
    pub sample: u32,
}

/// Where the candidate is read, without a lock.
type Published = Cache<Arc<ArcSwapOption<Candidate>>, Option<Arc<Candidate>>>;

/// One worker's side.
pub struct Shadow {
    published: RefCell<Published>,
    /// Of its own: the caches for patterns belong to one router each, and those of two would throw each other out.
    scratch: RefCell<Scratch>,
    known: RefCell<Known>,
    log: ShadowLog,
    sample: u32,
    worker: usize,
    metrics: Rc<WorkerMetrics>,
    /// The second of the worker's clock that copies are counted in, and how many.
    copied: Cell<(u64, u32)>,
    /// The same of microseconds that were spent on pairs that are new.
    measured: Cell<(u64, u64)>,
}

/// What is known of the pairs of decisions under the same rules.
#[derive(Default)]
struct Known {
    /// The live rules, the shadow rules and their counts.
    under: Option<(Arc<Router>, Arc<Router>, Arc<Figures>)>,
    pairs: FxHashMap<(Shape, Shape), Rc<Pair>>,
}

/// Decisions of one pair of shapes.
#[derive(Debug)]
struct Pair {
    class: Arc<Class>,
    /// Per million.
    moved: u64,
    /// The pools that it was measured over, live and shadow. Others of the same file may share otherwise.
    pools: [Option<Weak<FilePools>>; 2],
    cells: Arc<Cells>,
    counter: Counter,
}

/// A request about which the rules disagree.
#[derive(Debug)]
pub struct Disagreed {
    candidate: Arc<Candidate>,
    pair: Rc<Pair>,
}

/// The stream of [`Draw`] that decides what is sampled.
const SAMPLE_STREAM: u64 = 0x5AD0;
/// Pairs that are known before they are forgotten.
const MOST_PAIRS: usize = 1 << 14;
/// Disagreements that one worker copies in a second; further ones are counted as dropped.
const COPIES: u32 = 1_000;
/// Microseconds of each second that one worker measures pairs in that are new, or whose pools changed (1 %); requests
/// of further ones are skipped, and counted as that.
const MEASURING_US: u64 = 10_000;

impl Shadow {
    /// The shadow of the worker with this index.
    #[must_use]
    pub fn new(shadowing: Shadowing, worker: usize, metrics: &Rc<WorkerMetrics>) -> Self {
        let Shadowing { slot, log, sample } = shadowing;
        Self {
            published: RefCell::new(Cache::new(slot)),
            scratch: RefCell::default(),
            known: RefCell::default(),
            log,
            sample,
            worker,
            metrics: Rc::clone(metrics),
            copied: Cell::new((0, 0)),
            measured: Cell::new((0, 0)),
        }
    }

    /// A request was decided by the live rules: what would the shadow rules have said?
    pub fn decided(&self, exchange: &Exchange, view: &View, request: &RequestView<'_>, target: &str, live: &Decision) {
        let now_us = exchange.connection().clock.micros();
        let sender = exchange.connection().sender();
        if let Some(disagreed) = self.count(&view.table, request, sender, exchange.draw, live, now_us) {
            self.copy(exchange, view, request, target, &disagreed);
        }
    }

    /// Decides, compares and counts one request, if it is sampled. `sender`: by whom its control headers are judged;
    /// `now_us`: the worker's clock in microseconds.
    pub fn count(
        &self,
        table: &Table,
        request: &RequestView<'_>,
        sender: IpAddr,
        draw: Draw,
        live: &Decision,
        now_us: u64,
    ) -> Option<Disagreed> {
        if self.sample < WHOLE && draw.fork(SAMPLE_STREAM).below(u64::from(WHOLE)) >= u64::from(self.sample) {
            return None;
        }
        let mut published = self.published.borrow_mut();
        let candidate = published.load().as_ref()?;
        if candidate.live != table.generation {
            return None;
        }
        let trusted = candidate.table.router.trusts(request.host, request.path, sender);
        let asked = RequestView { trusted, ..*request };
        let other = decide(&*candidate.table, &asked, draw, &mut self.scratch.borrow_mut(), &mut NoTrace);
        let Some(pair) = self.pair(candidate, table, live, other, now_us) else {
            candidate.figures.skipped.add_shared(1);
            return None;
        };
        pair.cells.requests.add(1);
        pair.counter.add();
        pair.class.why?;
        pair.cells.moved.add(pair.moved);
        Some(Disagreed { candidate: Arc::clone(candidate), pair })
    }

    /// What is known of these decisions; `None`: nothing, and there is no time to find out.
    fn pair(
        &self,
        candidate: &Arc<Candidate>,
        table: &Table,
        live: &Decision,
        other: Decision,
        now_us: u64,
    ) -> Option<Rc<Pair>> {
        let mut known = self.known.borrow_mut();
        known.follow(candidate, table);
        let shapes = (live.shape(), other.shape());
        let pools = [pools_of(table, live), pools_of(&candidate.table, &other)];
        let before = known.pairs.get(&shapes);
        if let Some(pair) = before.filter(|pair| pair.is_over(pools)) {
            return Some(Rc::clone(pair));
        }
        let second = now_us / 1_000_000;
        let (of, spent) = self.measured.get();
        let spent = if of == second { spent } else { 0 };
        if spent >= MEASURING_US {
            return None;
        }
        let started = Instant::now();
        let both = Comparison { old: live.clone(), new: other };
        let pair = Rc::new(self.compared(candidate, table, both, pools, before.map(|pair| &**pair)));
        known.pairs.insert(shapes, Rc::clone(&pair));
        self.measured.set((second, spent + 1 + started.elapsed().as_micros() as u64));
        Some(pair)
    }

    /// The first of its shape: compared as `diff` does.
    fn compared(
        &self,
        candidate: &Candidate,
        table: &Table,
        both: Comparison,
        pools: [Option<&Arc<FilePools>>; 2],
        before: Option<&Pair>,
    ) -> Pair {
        let shift = both.shift(table, &candidate.table);
        let pools = pools.map(|pools| pools.map(Arc::downgrade));
        let worst = shift.moves.iter().max_by_key(|found| found.part);
        let class = match worst {
            Some(worst) => Class {
                live: names_of(&worst.from),
                shadow: names_of(&worst.to),
                why: Some(worst.why.words()),
                expected: worst.why.expected(),
                newly_unrouted: shift.refused_after && !shift.refused_before,
            },
            None => {
                let (from, to) = both.stops(table, &candidate.table);
                let ([live, _], [shadow, _]) = (names_of(&from), names_of(&to));
                let side = |rule| [rule, String::new()];
                Class { live: side(live), shadow: side(shadow), why: None, expected: false, newly_unrouted: false }
            }
        };
        let moved = shift.moved / 1_000;
        // Changed pools hardly ever change the class: its cells are found without a lock then.
        if let Some(Pair { cells, counter, class, .. }) = before.filter(|before| *before.class == class) {
            return Pair { class: Arc::clone(class), moved, pools, cells: Arc::clone(cells), counter: counter.clone() };
        }
        let (service, rule) = class.live[0].split_once('/').unwrap_or((&class.live[0], ""));
        // The service is named again only where it is another one.
        let other = &class.shadow[0];
        let other = other.strip_prefix(service).and_then(|rest| rest.strip_prefix('/')).unwrap_or(other);
        let agrees = if class.why.is_none() { "true" } else { "false" };
        Pair {
            counter: self.metrics.counter(&names::SHADOW_DECISIONS, &[service, rule, other, agrees]),
            cells: candidate.figures.cells(&class, self.worker),
            moved,
            pools,
            class: Arc::new(class),
        }
    }

    fn copy(
        &self,
        exchange: &Exchange,
        view: &View,
        request: &RequestView<'_>,
        target: &str,
        Disagreed { candidate, pair }: &Disagreed,
    ) {
        let connection = exchange.connection();
        let second = connection.clock.micros() / 1_000_000;
        let (of, copies) = self.copied.get();
        let copies = if of == second { copies } else { 0 };
        if copies >= COPIES {
            return self.log.give_up();
        }
        self.copied.set((second, copies + 1));
        let tls = connection.tls.as_ref();
        let record = Record {
            at: SystemTime::now(),
            method: request.method.clone(),
            host: request.host.into(),
            target: target.into(),
            scheme: exchange.scheme,
            protocol: connection.protocol(),
            copied: candidate.fields.copy(request.headers),
            client: request.client,
            peer: connection.sender(),
            sni: tls.and_then(|tls| tls.sni.clone()),
            san: tls.map_or_else(|| [].into(), |tls| tls.san.clone()),
            request_id: None,
            generation: view.table.generation,
            draw: exchange.draw,
            place: Place::default(),
            answer: Answer::default(),
        };
        self.log.send(Box::new(Disagreement { record, class: Arc::clone(&pair.class), moved: pair.moved }));
    }
}

impl Known {
    /// Forgets everything where the rules are others, or where there is too much of it.
    fn follow(&mut self, candidate: &Candidate, table: &Table) {
        let same = self.under.as_ref().is_some_and(|(live, shadow, figures)| {
            Arc::ptr_eq(live, &table.router)
                && Arc::ptr_eq(shadow, &candidate.table.router)
                && Arc::ptr_eq(figures, &candidate.figures)
        });
        if !same || self.pairs.len() >= MOST_PAIRS {
            let [live, shadow] = [&table.router, &candidate.table.router].map(Arc::clone);
            self.under = Some((live, shadow, Arc::clone(&candidate.figures)));
            self.pairs.clear();
        }
    }
}

impl Pair {
    fn is_over(&self, pools: [Option<&Arc<FilePools>>; 2]) -> bool {
        // A pool that was measured is not freed while it is known by a `Weak`, so no other one has its address.
        self.pools.iter().zip(pools).all(|(known, now)| known.as_ref().map(Weak::as_ptr) == now.map(Arc::as_ptr))
    }
}

/// What a decision's shares depend on besides the rules.
fn pools_of<'t>(table: &'t Table, decision: &Decision) -> Option<&'t Arc<FilePools>> {
    decision.file.map(|file| &table.files[file as usize])
}

fn names_of(stop: &Stop) -> [String; 2] {
    [stop.rule.clone(), stop.goal.clone()]
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow").field("worker", &self.worker).field("sample", &self.sample).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
