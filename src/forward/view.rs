//! A worker's own view of the table: the table, and what this worker keeps beside it. Shared within the worker only.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::retry::Budget;
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::policy::Eject;
use crate::engine::route::{Decision, PoolSlot, RouterFile};
use crate::engine::table::Table;
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
    /// Some pool balances by latency.
    pub watches_latency: bool,
    /// What retries may cost.
    pub budget: Rc<Budget>,
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
    pub fn new(table: Arc<Table>, before: Option<&Self>, metrics: &Rc<WorkerMetrics>, workers: usize) -> Self {
        let router = match before {
            Some(before) if Arc::ptr_eq(&before.table.router, &table.router) => Rc::clone(&before.router),
            _ => Rc::new(RouterView::new(&table.router.files, before.map(|view| &*view.router), metrics, workers)),
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
    fn new(files: &[Arc<RouterFile>], before: Option<&Self>, metrics: &Rc<WorkerMetrics>, workers: usize) -> Self {
        let known: FxHashMap<&str, &Rc<Budget>> =
            before.map_or_else(FxHashMap::default, |b| b.files.iter().map(|f| (&*f.service, &f.budget)).collect());
        let view = |file: &Arc<RouterFile>| {
            let budget = known.get(&*file.service).map_or_else(|| Rc::new(Budget::new(workers)), |b| Rc::clone(b));
            Rc::new(FileView {
                service: Arc::clone(&file.service),
                eject: file.eject.clone(),
                watches_latency: file.watches_latency,
                budget,
            })
        };
        Self {
            files: files.iter().map(view).collect(),
            series: Rc::new(SeriesCache::new(metrics)),
            names: RefCell::default(),
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
