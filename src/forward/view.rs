//! A worker's own view of the table: the table, and what this worker keeps beside it. Shared within the worker only.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::limit::Limiting;
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::limit::sketch::Sketch;
use crate::engine::limit::{Budget, Load};
use crate::engine::policy::Eject;
use crate::engine::route::{Decision, PoolSlot, RouterFile, RuleIdx};
use crate::engine::table::Table;
use crate::engine::upstream::Upstream;
use crate::observe::limit_book::Limits;
use crate::observe::metrics::{Names, RouteKey, SeriesCache, WorkerMetrics};

/// A generation of the table, as one worker sees it.
#[derive(Debug)]
pub struct View {
    /// The table.
    pub table: Arc<Table>,
    router: Rc<RouterView>,
}

/// What goes with a router; shared by the views of its generations.
#[derive(Debug)]
struct RouterView {
    /// In the router's order.
    files: Vec<Rc<FileView>>,
    series: Rc<SeriesCache>,
    names: RefCell<FxHashMap<RouteKey, Rc<RouteNames>>>,
}

/// A worker's side of a rule file.
#[derive(Debug)]
pub struct FileView {
    /// The service that it is for.
    pub service: Text,
    /// How evidence is judged.
    pub eject: Eject,
    /// How instances are spoken to.
    pub upstream: Rc<Upstream>,
    /// Some pool balances by latency.
    pub watches_latency: bool,
    /// What retries may cost.
    pub budget: Arc<Budget>,
    /// What the service and its instances carry at once; `None`: no limits.
    pub load: Option<Arc<Load>>,
    /// By rule, then the file's own: `limit`.
    limits: Box<[Option<Limiting>]>,
    /// Latencies of pools, where a hedge goes by them.
    latencies: RefCell<FxHashMap<PoolSlot, Box<Sketch>>>,
    /// This worker.
    pub worker: usize,
}

impl FileView {
    fn new(file: &RouterFile, limits: &Limits) -> Self {
        let rules = file.rules.iter().map(|rule| &rule.policies);
        Self {
            service: Arc::clone(&file.service),
            eject: file.eject.clone(),
            upstream: Rc::new(file.upstream.clone()),
            watches_latency: file.watches_latency,
            budget: limits.book.budget(&file.service),
            load: file.overload.map(|policy| limits.book.load(&file.service, policy)),
            limits: rules.chain([&file.policies]).map(|policies| Limiting::of(file, policies, &limits.book)).collect(),
            latencies: RefCell::default(),
            worker: limits.worker,
        }
    }

    /// Reads or feeds what is known of a pool's latency.
    pub fn latency<T>(&self, pool: PoolSlot, look: impl FnOnce(&mut Sketch) -> T) -> T {
        look(self.latencies.borrow_mut().entry(pool).or_default())
    }

    /// The limit in force for a rule; `None`: for requests that no rule matched.
    #[must_use]
    pub fn limit(&self, rule: Option<RuleIdx>) -> Option<&Limiting> {
        let at = rule.map_or(self.limits.len() - 1, |rule| rule as usize);
        self.limits[at].as_ref()
    }
}

/// The names of a route. Empty: none.
#[derive(Debug)]
pub struct RouteNames {
    /// The file's service.
    pub service: Text,
    /// The rule.
    pub rule: Text,
    /// The pool.
    pub pool: Text,
}

impl View {
    /// A view of `table`. Takes over from the one before what still holds.
    #[must_use]
    pub fn new(table: Arc<Table>, before: Option<&Self>, metrics: &Rc<WorkerMetrics>, limits: &Limits) -> Self {
        let router = match before {
            Some(before) if Arc::ptr_eq(&before.table.router, &table.router) => Rc::clone(&before.router),
            Some(before) => Rc::new(RouterView::after(before, &table.router.files, limits)),
            None => Rc::new(RouterView::new(&table.router.files, metrics, limits)),
        };
        Self { table, router }
    }

    /// The worker's side of a file.
    #[must_use]
    pub fn file(&self, file: u32) -> &Rc<FileView> {
        &self.router.files[file as usize]
    }

    /// The counters of this router.
    #[must_use]
    pub fn series(&self) -> &Rc<SeriesCache> {
        &self.router.series
    }

    /// The names of a route; made once a worker and router.
    pub fn names(&self, key: RouteKey, decision: &Decision, pool: Option<PoolSlot>) -> Rc<RouteNames> {
        if let Some(names) = self.router.names.borrow().get(&key) {
            return Rc::clone(names);
        }
        let file = decision.file.map(|file| &*self.table.router.files[file as usize]);
        let rule = file.zip(decision.rule).map(|(file, rule)| &file.rules[rule as usize].name);
        let pool = file.zip(pool).map(|(file, pool)| &file.pools[pool as usize].name);
        let text = |name: Option<&Text>| name.map_or_else(|| Text::from(""), Arc::clone);
        let names = RouteNames { service: text(file.map(|f| &f.service)), rule: text(rule), pool: text(pool) };
        let names = Rc::new(names);
        self.router.names.borrow_mut().insert(key, Rc::clone(&names));
        names
    }
}

impl RouterView {
    fn new(files: &[Arc<RouterFile>], metrics: &Rc<WorkerMetrics>, limits: &Limits) -> Self {
        Self {
            files: files.iter().map(|file| Rc::new(FileView::new(file, limits))).collect(),
            series: Rc::new(SeriesCache::new(metrics)),
            names: RefCell::default(),
        }
    }

    /// The view of another router: files that both have keep what this worker keeps of them, wherever they stand now, so
    /// that a service that comes to a file for every service costs no other one.
    fn after(before: &View, files: &[Arc<RouterFile>], limits: &Limits) -> Self {
        let was = &before.table.router.files;
        let places: FxHashMap<*const RouterFile, u32> = files.iter().map(Arc::as_ptr).zip(0..).collect();
        let place = |file: u32| places.get(&Arc::as_ptr(was.get(file as usize)?)).copied();
        let known: FxHashMap<*const RouterFile, &Rc<FileView>> =
            was.iter().map(Arc::as_ptr).zip(&before.router.files).collect();
        let view = |file: &Arc<RouterFile>| match known.get(&Arc::as_ptr(file)) {
            Some(known) => Rc::clone(known),
            None => Rc::new(FileView::new(file, limits)),
        };
        let names = before.router.names.borrow();
        let kept = names.iter().filter_map(|(key, names)| Some((key.moved(place)?, Rc::clone(names))));
        Self {
            files: files.iter().map(view).collect(),
            series: Rc::new(before.router.series.moved(place)),
            names: RefCell::new(kept.collect()),
        }
    }
}

impl RouteNames {
    /// As metrics want them.
    #[must_use]
    pub fn names<'n>(&'n self, instance: Option<&'n Arc<Instance>>) -> Names<'n> {
        Names { service: &self.service, rule: &self.rule, pool: &self.pool, instance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::diagnostic::Source;
    use crate::engine::locality::Place;
    use crate::engine::route::Router;
    use crate::engine::rules::parse_files;
    use crate::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
    use crate::engine::time::Millis;
    use crate::observe::limit_book::Book;
    use crate::observe::metrics::{Metrics, Settings};
    use crate::observe::names;

    #[test]
    fn a_service_that_comes_costs_the_others_neither_views_nor_series() {
        let rules = "service: '*'\nhosts: ['{service}.internal']\npools: {live: id exists}\n\
                     rules: [{name: all, to: live}]\n";
        let (set, _) = parse_files(&[Source::new("all.yaml", rules)]);
        let router = Router::compile(&set).expect("rules");
        let mut lives = LiveSet::default();
        let mut service = |name: &str| ServiceSnapshot::build(name.into(), 1, Vec::new(), &mut lives, Millis(0));
        let snapshot = Snapshot::new([service("orders")]);
        let table = Table::build(1, snapshot, Arc::new(router), Place::default(), Millis(0)).expect("a table");
        let (more, _) = table.with_service(2, service("accounts"), Millis(1));
        let place = |table: &Table| table.router.file("orders.internal", "/").expect("it is claimed");
        let (was, is) = (place(&table), place(&more));
        assert_ne!(was, is);

        let metrics = Rc::new(Metrics::new(1, Settings::default()).worker(0));
        let limits = Limits { book: Arc::new(Book::new(1, std::hash::RandomState::new())), worker: 0 };
        let before = View::new(Arc::new(table), None, &metrics, &limits);
        let key = |file| RouteKey::new(Some(file), Some(0), Some(0));
        let names = || Names { service: "orders", rule: "all", pool: "live", instance: None };
        before.series().count(&names::RETRIES, key(was), "reset", names);
        let after = View::new(Arc::new(more), Some(&before), &metrics, &limits);
        assert!(Rc::ptr_eq(before.file(was), after.file(is)));
        after.series().count(&names::RETRIES, key(is), "reset", || panic!("the series is looked up again"));
    }
}
