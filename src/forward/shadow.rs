//! The shadow rules' decision beside the live one. What repeats is known by its shape: a request costs one more
//! decision, one look-up and three plain stores; only disagreements are copied.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Cache};
use rustc_hash::FxHashMap;

use super::exchange::Exchange;
use super::view::View;
use crate::dry_run::diff::{Comparison, Stop};
use crate::engine::policy::WHOLE;
use crate::engine::request::RequestView;
use crate::engine::route::{Decision, Scratch, Shape, decide};
use crate::engine::trace::NoTrace;
use crate::observe::access_log::{Answer, Place, Record};
use crate::observe::metrics::{Counter, WorkerMetrics};
use crate::observe::names;
use crate::observe::shadow::{Candidate, Cells, Class, Disagreement, ShadowLog, Slot};

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

/// One worker's side.
pub struct Shadow {
    published: RefCell<Cache<Arc<ArcSwapOption<Candidate>>, Option<Arc<Candidate>>>>,
    /// Of its own: the caches for patterns belong to one router each, and those of two would throw each other out.
    scratch: RefCell<Scratch>,
    known: RefCell<Known>,
    log: ShadowLog,
    sample: u32,
    worker: usize,
    metrics: Rc<WorkerMetrics>,
    /// The second of the worker's clock that copies are counted in, and how many.
    copied: Cell<(u64, u32)>,
}

/// What is known of the pairs of decisions under one candidate.
#[derive(Default)]
struct Known {
    of: Option<Arc<Candidate>>,
    pairs: FxHashMap<(Shape, Shape), Rc<Pair>>,
}

/// Decisions of one pair of shapes.
struct Pair {
    class: Arc<Class>,
    /// Per million.
    moved: u64,
    cells: Arc<Cells>,
    counter: Counter,
}

/// The stream of [`Draw`](crate::engine::time::Draw) that decides what is sampled.
const SAMPLE_STREAM: u64 = 0x5AD0;
/// Pairs that are known before they are forgotten.
const MOST_PAIRS: usize = 1 << 14;
/// Disagreements that one worker copies in a second; further ones are counted as dropped.
const COPIES: u32 = 1_000;

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
        }
    }

    /// A request was decided by the live rules: what would the shadow rules have said?
    pub fn decided(&self, exchange: &Exchange, view: &View, request: &RequestView<'_>, target: &str, live: &Decision) {
        let draw = exchange.draw;
        if self.sample < WHOLE && draw.fork(SAMPLE_STREAM).below(u64::from(WHOLE)) >= u64::from(self.sample) {
            return;
        }
        let mut published = self.published.borrow_mut();
        let Some(candidate) = published.load() else { return };
        if candidate.live != view.table.generation {
            return;
        }
        let trusted = candidate.table.router.trusts(request.host, request.path, request.client);
        let asked = RequestView { trusted, ..*request };
        let other = decide(&*candidate.table, &asked, draw, &mut self.scratch.borrow_mut(), &mut NoTrace);
        let pair = self.pair(candidate, view, live, other);
        pair.cells.requests.add(1);
        pair.counter.add();
        if pair.class.why.is_some() {
            pair.cells.moved.add(pair.moved);
            self.copy(exchange, view, request, target, candidate, &pair);
        }
    }

    fn pair(&self, candidate: &Arc<Candidate>, view: &View, live: &Decision, other: Decision) -> Rc<Pair> {
        let mut known = self.known.borrow_mut();
        let same = known.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, candidate));
        if !same || known.pairs.len() >= MOST_PAIRS {
            *known = Known { of: Some(Arc::clone(candidate)), pairs: FxHashMap::default() };
        }
        let shapes = (live.shape(), other.shape());
        if let Some(pair) = known.pairs.get(&shapes) {
            return Rc::clone(pair);
        }
        let pair = Rc::new(self.compared(candidate, view, Comparison { old: live.clone(), new: other }));
        known.pairs.insert(shapes, Rc::clone(&pair));
        pair
    }

    /// The first of its shape: compared as `diff` does.
    fn compared(&self, candidate: &Candidate, view: &View, both: Comparison) -> Pair {
        let shift = both.shift(&view.table, &candidate.table);
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
                let (from, to) = both.stops(&view.table, &candidate.table);
                let ([live, _], [shadow, _]) = (names_of(&from), names_of(&to));
                let side = |rule| [rule, String::new()];
                Class { live: side(live), shadow: side(shadow), why: None, expected: false, newly_unrouted: false }
            }
        };
        let (service, rule) = class.live[0].split_once('/').unwrap_or((&class.live[0], ""));
        // The service is named again only where it is another one.
        let other = &class.shadow[0];
        let other = other.strip_prefix(service).and_then(|rest| rest.strip_prefix('/')).unwrap_or(other);
        let agrees = if class.why.is_none() { "true" } else { "false" };
        Pair {
            counter: self.metrics.counter(&names::SHADOW_DECISIONS, &[service, rule, other, agrees]),
            cells: candidate.figures.cells(&class, self.worker),
            moved: shift.moved / 1_000,
            class: Arc::new(class),
        }
    }

    fn copy(
        &self,
        exchange: &Exchange,
        view: &View,
        request: &RequestView<'_>,
        target: &str,
        candidate: &Candidate,
        pair: &Pair,
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
            scheme: connection.scheme(),
            protocol: connection.protocol(),
            copied: candidate.fields.copy(request.headers),
            client: request.client,
            peer: connection.client(),
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

fn names_of(stop: &Stop) -> [String; 2] {
    [stop.rule.clone(), stop.goal.clone()]
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow").field("worker", &self.worker).field("sample", &self.sample).finish_non_exhaustive()
    }
}
