//! A worker's side of the metrics: integers to cells, without a lock once a series is known.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::engine::instance::Instance;
use crate::observe::names::Family;

use super::Metrics;
use super::cells::{CountCell, RouteCells, WorkerCells};
use super::registry::Series;

/// Entries of one cache before it is emptied (their cells stay).
const CACHE_LIMIT: usize = 8_192;

/// Stands for "no file", "no rule", "no pool" in keys.
const NONE: u32 = u32::MAX;

/// Where a request went, as the table's own integers. Means something only beside the router it came from, which is
/// why the cache lives in the worker's view of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteKey {
    file: u32,
    rule: u32,
    slot: u32,
}

impl RouteKey {
    /// From the decision's file and rule and the chosen pool's slot.
    #[must_use]
    pub fn new(file: Option<u32>, rule: Option<u32>, slot: Option<u32>) -> Self {
        Self { file: file.unwrap_or(NONE), rule: rule.unwrap_or(NONE), slot: slot.unwrap_or(NONE) }
    }

    /// The same route where its file stands now; `None`: the file is gone.
    #[must_use]
    pub fn moved(self, place: impl Fn(u32) -> Option<u32>) -> Option<Self> {
        match self.file {
            NONE => Some(self),
            file => Some(Self { file: place(file)?, ..self }),
        }
    }
}

/// A route, an instance and a status class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    route: RouteKey,
    /// The instance's address in memory; the cache entry holds the `Arc`, so it cannot come to mean another.
    instance: usize,
    class: u8,
}

impl RequestKey {
    /// The key of an answer with this status (499: the client went away).
    #[must_use]
    pub fn new(route: RouteKey, instance: Option<&Arc<Instance>>, status: u16) -> Self {
        let instance = instance.map_or(0, |instance| Arc::as_ptr(instance) as usize);
        Self { route, instance, class: (status / 100).min(9) as u8 }
    }

    fn class_word(self) -> &'static str {
        match self.class {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => super::OTHER,
        }
    }
}

/// The names behind a key; asked for only when its series is not known yet. Empty text: none.
#[derive(Clone, Copy, Debug)]
pub struct Names<'n> {
    /// The file's service.
    pub service: &'n str,
    /// The rule's name.
    pub rule: &'n str,
    /// The pool's name.
    pub pool: &'n str,
    /// Whose labels are counted under.
    pub instance: Option<&'n Arc<Instance>>,
}

/// What a finished request is counted with. Durations in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Head to last byte.
    pub duration_us: u64,
    /// Start of the last attempt to the answer's head; `None`: there was no answer from an instance.
    pub first_byte_us: Option<u64>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

/// One worker's handle. Used by one thread; `Rc` it where it is shared between that thread's tasks.
#[derive(Debug)]
pub struct WorkerMetrics {
    metrics: Arc<Metrics>,
    index: usize,
    cells: Arc<WorkerCells>,
    words: RefCell<FxHashMap<(usize, usize), Arc<CountCell>>>,
}

impl WorkerMetrics {
    pub(super) fn new(metrics: Arc<Metrics>, index: usize) -> Self {
        let index = index.min(metrics.workers.len() - 1);
        let cells = Arc::clone(&metrics.workers[index]);
        Self { metrics, index, cells, words: RefCell::default() }
    }

    /// The unlabelled figures: in-flight, connections.
    #[must_use]
    pub fn cells(&self) -> &WorkerCells {
        &self.cells
    }

    /// This worker's counter of these label values, in the family's order.
    #[must_use]
    pub fn counter(&self, family: &'static Family, labels: &[&str]) -> Counter {
        let series = self.metrics.counter(family).series(labels);
        Counter { count: Arc::clone(series.cell(self.index)), _series: series }
    }

    /// Counts in a family whose only label is one word (`REFUSALS`, `ACCEPT_ERRORS`, `PANICS`).
    pub fn word(&self, family: &'static Family, word: &'static str) {
        debug_assert_eq!(family.labels.len(), 1, "{} has other labels", family.name);
        let key = (family.name.as_ptr() as usize, word.as_ptr() as usize ^ word.len() << 56);
        if let Some(cell) = self.words.borrow().get(&key) {
            return cell.0.add(1);
        }
        let cell = Arc::clone(self.metrics.counter(family).series(&[word]).cell(self.index));
        cell.0.add(1);
        self.words.borrow_mut().insert(key, cell);
    }
}

/// A series of a family that a worker counts in; the series lives while this does.
#[derive(Clone, Debug)]
pub struct Counter {
    count: Arc<CountCell>,
    _series: Arc<Series<CountCell>>,
}

impl Counter {
    /// Counts one; only the worker that it was made by may.
    pub fn add(&self) {
        self.count.0.add(1);
    }
}

#[derive(Debug)]
struct RequestEntry {
    count: Arc<CountCell>,
    route: Arc<RouteCells>,
    /// Kept so that the registry sees the series in use.
    _series: (Arc<Series<CountCell>>, Arc<Series<RouteCells>>),
    /// Kept so that the key's address stays this instance's.
    _instance: Option<Arc<Instance>>,
}

#[derive(Debug)]
struct CountEntry {
    count: Arc<CountCell>,
    _series: Arc<Series<CountCell>>,
}

/// From a router's integers to cells. One per worker and router: the worker's view of the table makes a new one when
/// the router changed, from what still holds, and shares the old one while only instances or health did.
#[derive(Debug)]
pub struct SeriesCache {
    worker: Rc<WorkerMetrics>,
    requests: RefCell<FxHashMap<RequestKey, RequestEntry>>,
    counts: RefCell<FxHashMap<(usize, RouteKey, usize), CountEntry>>,
}

impl SeriesCache {
    /// An empty one.
    #[must_use]
    pub fn new(worker: &Rc<WorkerMetrics>) -> Self {
        Self { worker: Rc::clone(worker), requests: RefCell::default(), counts: RefCell::default() }
    }

    /// The cache of another router, with what this one has of the files that it shares: `place` says where they stand. It
    /// moves; a request that is under way with this one looks its series up again.
    #[must_use]
    pub fn moved(&self, place: impl Fn(u32) -> Option<u32>) -> Self {
        let requests = self
            .requests
            .take()
            .into_iter()
            .filter_map(|(key, entry)| Some((RequestKey { route: key.route.moved(&place)?, ..key }, entry)));
        let counts = self
            .counts
            .take()
            .into_iter()
            .filter_map(|((family, route, word), entry)| Some(((family, route.moved(&place)?, word), entry)));
        Self {
            worker: Rc::clone(&self.worker),
            requests: RefCell::new(requests.collect()),
            counts: RefCell::new(counts.collect()),
        }
    }

    /// The worker's handle.
    #[must_use]
    pub fn worker(&self) -> &Rc<WorkerMetrics> {
        &self.worker
    }

    /// Counts a finished request: `REQUESTS`, the durations and the bytes. Allocates only for a new series.
    /// `names` must give the names that `key` stands for, with the instance that `key` was made with.
    pub fn request<'n>(&self, key: RequestKey, names: impl FnOnce() -> Names<'n>, done: &Done) {
        if let Some(entry) = self.requests.borrow().get(&key) {
            return entry.add(done);
        }
        let entry = self.request_entry(key, &names());
        entry.add(done);
        let mut requests = self.requests.borrow_mut();
        if requests.len() >= CACHE_LIMIT {
            requests.clear();
        }
        requests.insert(key, entry);
    }

    /// Counts one in a family of routes: `ATTEMPTS`, `RETRIES`, `RETRIES_REFUSED`, `ERRORS`, `PROBES`, `MIRRORED` with their last
    /// label as `word`, `SPLIT_REROUTED` and `PANIC_PICKS` with an empty one. Allocates only for a new series.
    pub fn count<'n>(
        &self,
        family: &'static Family,
        route: RouteKey,
        word: &'static str,
        names: impl FnOnce() -> Names<'n>,
    ) {
        let key = (family.name.as_ptr() as usize, route, word.as_ptr() as usize ^ word.len() << 56);
        if let Some(entry) = self.counts.borrow().get(&key) {
            return entry.count.0.add(1);
        }
        let names = names();
        let labels: smallvec::SmallVec<[&str; 4]> = family
            .labels
            .iter()
            .map(|label| match *label {
                "service" => names.service,
                "rule" => names.rule,
                "pool" => names.pool,
                _ => word,
            })
            .collect();
        let series = self.worker.metrics.counter(family).series(&labels);
        let entry = CountEntry { count: Arc::clone(series.cell(self.worker.index)), _series: series };
        entry.count.0.add(1);
        let mut counts = self.counts.borrow_mut();
        if counts.len() >= CACHE_LIMIT {
            counts.clear();
        }
        counts.insert(key, entry);
    }

    fn request_entry(&self, key: RequestKey, names: &Names<'_>) -> RequestEntry {
        let metrics = &self.worker.metrics;
        let series = metrics.request_series(names, key.class_word());
        let routes = metrics.routes.series(&[names.service, names.rule, names.pool]);
        RequestEntry {
            count: Arc::clone(series.cell(self.worker.index)),
            route: Arc::clone(routes.cell(self.worker.index)),
            _series: (series, routes),
            _instance: names.instance.cloned(),
        }
    }
}

impl RequestEntry {
    fn add(&self, done: &Done) {
        self.count.0.add(1);
        self.route.duration.observe(done.duration_us);
        if let Some(micros) = done.first_byte_us {
            self.route.first_byte.observe(micros);
        }
        self.route.bytes_in.add(done.bytes_in);
        self.route.bytes_out.add(done.bytes_out);
    }
}
