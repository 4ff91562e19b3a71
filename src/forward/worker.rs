//! What one worker's requests share: table, peers, luck, counters. One thread; no lock, no reference count of others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};

use super::clock::Clock;
use super::exchange::Peer;
use super::mirror::Mirrors;
use super::settings::Settings;
use super::traced::Traces;
use super::upload::UploadBody;
use super::view::View;
use super::watch::{Watch, Watching};
use crate::engine::balance::Memory;
use crate::engine::health::{Evidence, Transition};
use crate::engine::instance::Instance;
use crate::engine::policy::Eject;
use crate::engine::route::Scratch;
use crate::engine::snapshot::Endpoint;
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};
use crate::observe::access_log::{AccessLog, ReadFields};
use crate::observe::limit_book::{Book, Limits};
use crate::observe::memory::Account;
use crate::observe::metrics::{Done, Metrics, Names, RequestKey, RouteKey, SeriesCache, WorkerMetrics};
use crate::observe::names::Family;
use crate::observe::transitions::Transitions;
use crate::upstream::peer::Terms;
use crate::upstream::seat::Bound;
use crate::upstream::{Peers, Trusts};

/// What all workers are started from.
#[derive(Clone)]
pub struct Shared {
    /// The published table.
    pub table: Arc<ArcSwap<Table>>,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The access log; `None`: off.
    pub access_log: Option<Log>,
    /// Who is told that an endpoint's health moved.
    pub transitions: Transitions,
    /// Who looks on at decisions.
    pub watch: Watching,
    /// Whether the catalog has been heard; until then want of instances is `not_ready`.
    pub ready: Arc<AtomicBool>,
    /// The origin of `Millis` in this process.
    pub origin: Instant,
    /// A seed from the system; each worker derives its own.
    pub seed: u64,
    /// What is believed and shown towards instances.
    pub trusts: Arc<Trusts>,
    /// How many workers there are.
    pub workers: usize,
    /// Who may see how a request was decided; `None`: nobody.
    pub traces: Option<Traces>,
    /// What limits know; kept by the control plane over every reload.
    pub book: Arc<Book>,
}

/// The access log, and what of a head it copies.
#[derive(Clone, Debug)]
pub struct Log {
    /// The writer.
    pub lines: AccessLog,
    /// Fields that the rules in force read.
    pub fields: Arc<ArcSwap<ReadFields>>,
}

/// One worker's part of the data plane.
pub struct Worker {
    /// Settings.
    pub settings: Arc<Settings>,
    /// The clock.
    pub clock: Rc<Clock>,
    /// Endpoints that this worker has talked to.
    pub peers: Peers<UploadBody>,
    /// Copies of requests that are under way.
    pub mirrors: Mirrors,
    /// Counters.
    pub metrics: Rc<WorkerMetrics>,
    /// The access log; `None`: off.
    pub access_log: Option<Log>,
    /// Who may see how a request was decided.
    pub traces: Option<Traces>,
    /// Caches of `decide`.
    pub scratch: RefCell<Scratch>,
    /// Who looks on at decisions; `None`: nobody.
    pub watch: Option<Box<Watch>>,
    /// What picking remembers.
    pub memory: Memory,
    transitions: Transitions,
    ready: Arc<AtomicBool>,
    published: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    view: RefCell<Rc<View>>,
    /// Generation that the last sweep saw.
    swept: Cell<u64>,
    unrouted: SeriesCache,
    luck: Cell<u64>,
    /// What limits know, and which worker this is.
    pub limits: Limits,
    /// What this worker's clients hold in buffers.
    pub account: Rc<Account>,
}

impl Worker {
    /// The worker of this index, on the thread that will run it.
    #[must_use]
    pub fn new(shared: Shared, index: usize) -> Rc<Self> {
        let metrics = Rc::new(shared.metrics.worker(index));
        let mut published = Cache::new(shared.table);
        let watch = Watch::new(shared.watch, index, &metrics);
        let limits = Limits { book: shared.book, worker: index };
        let view = View::new(Arc::clone(published.load()), None, &metrics, &limits);
        let terms = terms(&shared.settings, &limits.book);
        let account = Rc::new(Account::new(limits.book.memory()));
        Rc::new(Self {
            peers: Peers::new(&shared.settings.protocol_label, shared.trusts, terms),
            settings: shared.settings,
            clock: Rc::new(Clock::new(shared.origin)),
            mirrors: Mirrors::default(),
            unrouted: SeriesCache::new(&metrics),
            metrics,
            access_log: shared.access_log,
            traces: shared.traces,
            scratch: RefCell::new(Scratch::new()),
            watch,
            memory: Memory::default(),
            transitions: shared.transitions,
            ready: shared.ready,
            published: RefCell::new(published),
            view: RefCell::new(Rc::new(view)),
            swept: Cell::new(0),
            luck: Cell::new(Draw(shared.seed).fork(index as u64).0),
            limits,
            account,
        })
    }

    /// The view of the table in force: one relaxed load unless a newer one was published.
    pub fn view(&self) -> Rc<View> {
        let mut published = self.published.borrow_mut();
        let table = published.load();
        if !Arc::ptr_eq(table, &self.view.borrow().table) {
            let newer = View::new(Arc::clone(table), Some(&self.view.borrow()), &self.metrics, &self.limits);
            self.view.replace(Rc::new(newer));
        }
        Rc::clone(&self.view.borrow())
    }

    /// Whether the catalog has been heard.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// A request's luck.
    pub fn draw(&self) -> Draw {
        let mut stream = Draw(self.luck.get());
        let draw = stream.advance();
        self.luck.set(stream.0);
        Draw(draw)
    }

    /// Feeds evidence about an endpoint; tells the publisher if its health moved.
    pub fn evidence(&self, peer: &Peer, evidence: Evidence, policy: &Eject) {
        let jitter = Draw(self.luck.get() ^ peer.live.id);
        if let Some(transition) = peer.live.record(evidence, self.clock.now(), policy, jitter) {
            self.tell(peer, transition);
        }
    }

    /// An ejected endpoint served a request before its time: it is readmitted.
    pub fn proved(&self, peer: &Peer) {
        if let Some(transition) = peer.live.prove(self.clock.now()) {
            self.tell(peer, transition);
        }
    }

    fn tell(&self, peer: &Peer, transition: Transition) {
        let (instance, live) = (Arc::clone(&peer.instance), Arc::clone(&peer.live));
        self.transitions.report(&Endpoint { instance, live, graced: false }, transition);
    }

    /// Counts a request that no file claimed.
    pub fn unrouted(&self, status: u16, done: &Done) {
        self.unrouted.request(RequestKey::new(RouteKey::new(None, None, None), None, status), nobodys, done);
    }

    /// Counts what became of one, in a family with a service and a word.
    pub fn count_unrouted(&self, family: &'static Family, word: &'static str) {
        self.unrouted.count(family, RouteKey::new(None, None, None), word, nobodys);
    }

    /// Once a second: closes idle connections that are too old, were closed by the instance, or lead to one that left.
    /// Also lets go of an old table when no request comes to do it.
    pub fn tick(&self) {
        let now = self.clock.read_millis();
        let view = self.view();
        let changed = self.swept.replace(view.table.generation) != view.table.generation;
        self.peers.sweep(now, |peer| !changed || is_listed(&view.table, peer));
        let cells = self.metrics.cells();
        let (open, counted) = (u64::from(self.peers.open()), cells.upstream_connections.value());
        cells.upstream_connections.add(open.saturating_sub(counted));
        cells.upstream_connections.sub(counted.saturating_sub(open));
        let h2 = self.peers.h2();
        cells.upstream_h2_goaways.add(h2.goaways.take());
        cells.upstream_h2_resets.add(h2.resets.take());
        self.account.idle_links(open.saturating_sub(cells.in_flight.value()));
    }

    /// The moment, for what has no connection at hand.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now()
    }
}

/// What a request is counted under that no file claimed.
fn nobodys() -> Names<'static> {
    Names { service: "", rule: "", pool: "", instance: None }
}

/// What holds for connections to all instances.
fn terms(settings: &Settings, book: &Book) -> Terms {
    let most = settings.max_connections;
    let bound = (most > 0).then(|| Bound { most, seats: Arc::clone(book.seats()) });
    Terms {
        idle: settings.upstream_idle,
        bound,
        head: settings.answer_head,
        streams: settings.upstream_streams,
        h2: Rc::default(),
    }
}

/// Whether the table's snapshot still lists the endpoint.
fn is_listed(table: &Table, peer: &Peer) -> bool {
    let key = |instance: &Instance| (Arc::clone(&instance.identity), instance.addr);
    let wanted = key(&peer.instance);
    table.snapshot.service(&peer.instance.service).is_some_and(|service| {
        let found = service.endpoints.binary_search_by(|endpoint| key(&endpoint.instance).cmp(&wanted));
        found.is_ok_and(|at| service.endpoints[at].live.id == peer.live.id)
    })
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("generation", &self.view.borrow().table.generation).finish_non_exhaustive()
    }
}
