//! A data plane on loopback, clients that write raw bytes, and instances with any manners.

mod client;
pub mod h2;
pub mod ocsp;
pub mod pki;
mod scripted;

use std::future::Future;
use std::hash::RandomState;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::health::Transition;
use pointsman::engine::instance::{Instance, Status, Weights};
use pointsman::engine::locality::Place;
use pointsman::engine::route::Router;
use pointsman::engine::rules;
use pointsman::engine::snapshot::{Live, LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::Millis;
use pointsman::forward::worker::Log;
use pointsman::forward::{Settings, Shared};
use pointsman::observe::access_log::{self, AccessLog};
use pointsman::observe::limit_book::Book;
use pointsman::observe::line_writer::Target;
use pointsman::observe::metrics::Metrics;
use pointsman::observe::transitions::{Moved, Transitions};
use pointsman::server::{DataPlane, Drained, Limits, Listen};
use pointsman::upstream::Trusts;
use tokio::sync::mpsc;

pub use client::{Client, Reply};
pub use scripted::{Act, Scripted, Seen, ok, read_request, reset, status};

/// Everything a test waits for comes within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// All instances of the service `web` in one pool.
pub const ONE_POOL: &str = "service: web\npools: {all: id exists}\nrules:\n  - name: all\n    to: [all]\n";

/// Waits, but not for ever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Health transitions, in order.
pub struct Recorded(Mutex<Inbox>);

/// What has not been taken yet, and what has.
type Inbox = (mpsc::UnboundedReceiver<Moved>, Vec<(String, Transition)>);

impl Recorded {
    /// Takes what has been reported by now, as the publisher does; all so far, by instance.
    pub fn all(&self) -> Vec<(String, Transition)> {
        let mut state = self.0.lock().unwrap();
        while let Ok(Moved { endpoint, transition }) = state.0.try_recv() {
            endpoint.live.clear_dirty();
            state.1.extend(transition.map(|transition| (endpoint.instance.id.to_string(), transition)));
        }
        state.1.clone()
    }
}

/// A data plane.
pub struct Proxy {
    /// The first listener.
    pub address: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub metrics: Arc<Metrics>,
    pub transitions: Arc<Recorded>,
    table: Arc<ArcSwap<Table>>,
    live: Mutex<LiveSet>,
    origin: Instant,
    plane: DataPlane,
    log: Option<tempfile::NamedTempFile>,
    book: Arc<Book>,
}

/// How a data plane is started.
pub struct Setup {
    pub rules: String,
    pub instances: Vec<Instance>,
    pub settings: Settings,
    pub limits: Limits,
    pub workers: usize,
    pub listen: Vec<Listen>,
    pub trusts: Arc<Trusts>,
    /// An access log is written.
    pub logs: bool,
}

/// A port of loopback.
pub const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Default for Setup {
    fn default() -> Self {
        Self {
            rules: ONE_POOL.into(),
            instances: Vec::new(),
            settings: Settings::default(),
            limits: Limits::default(),
            workers: 1,
            listen: vec![Listen::plain(ANY)],
            trusts: Arc::default(),
            logs: false,
        }
    }
}

impl Setup {
    /// These addresses as `web-0`, `web-1`, …
    pub fn to(addresses: &[SocketAddr]) -> Self {
        let instances = addresses.iter().enumerate();
        Self {
            instances: instances.map(|(at, addr)| instance(&format!("web-{at}"), *addr, &[])).collect(),
            ..Self::default()
        }
    }

    pub fn rules(mut self, rules: &str) -> Self {
        self.rules = rules.into();
        self
    }

    pub fn listen(mut self, listen: Vec<Listen>) -> Self {
        self.listen = listen;
        self
    }

    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    fn table(&self, generation: u64, live: &mut LiveSet) -> Table {
        let (set, found) = rules::parse_files(&[Source::new("web.yaml", self.rules.as_str())]);
        assert!(!found.has_errors(), "{}", found.render());
        let router = Router::compile(&set).unwrap_or_else(|found| panic!("{}", found.render()));
        let instances = self.instances.iter().cloned().map(Arc::new).collect();
        let service = ServiceSnapshot::build("web".into(), generation, instances, live, Millis(0));
        let snapshot = Snapshot::new([service]);
        Table::build(generation, snapshot, Arc::new(router), Place::default(), Millis(0)).unwrap()
    }

    pub async fn start(self) -> Proxy {
        let mut live = LiveSet::default();
        let table = Arc::new(ArcSwap::from_pointee(self.table(1, &mut live)));
        let metrics = Metrics::new(self.workers, pointsman::observe::metrics::Settings::default());
        let (reports, moved) = Transitions::channel();
        let transitions = Arc::new(Recorded(Mutex::new((moved, Vec::new()))));
        let log = self.logs.then(|| log().unwrap());
        let origin = Instant::now() - Duration::from_secs(600);
        let shared = Shared {
            table: Arc::clone(&table),
            settings: Arc::new(self.settings),
            metrics: Arc::clone(&metrics),
            access_log: log.as_ref().map(|(log, _)| log.clone()),
            transitions: reports,
            watch: pointsman::forward::watch::Watching::default(),
            ready: Arc::new(AtomicBool::new(true)),
            origin,
            seed: 7,
            trusts: Arc::clone(&self.trusts),
            workers: self.workers,
            traces: None,
            book: Arc::new(Book::new(self.workers, RandomState::new())),
        };
        let book = Arc::clone(&shared.book);
        let plane = DataPlane::start(self.listen, &shared, &self.limits).await.unwrap();
        let addresses = plane.addresses().to_vec();
        let log = log.map(|(_, file)| file);
        let live = Mutex::new(live);
        Proxy { address: addresses[0], addresses, metrics, transitions, table, live, origin, plane, log, book }
    }
}

impl Proxy {
    /// One pool with these addresses.
    pub async fn to(addresses: &[SocketAddr]) -> Self {
        Setup::to(addresses).start().await
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Publishes another table.
    pub fn publish(&self, setup: &Setup) {
        let generation = self.table.load().generation + 1;
        let table = setup.table(generation, &mut self.live.lock().unwrap());
        self.table.store(Arc::new(table));
    }

    /// Publishes a table made elsewhere.
    pub fn publish_table(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// Publishes what has become of everybody's health, as the publisher does.
    pub fn publish_health(&self) {
        let (table, now) = (self.table.load(), self.origin.elapsed().as_millis() as u64);
        self.transitions.all();
        let lives: Vec<_> = table.endpoints(0).iter().map(|endpoint| Arc::clone(&endpoint.live)).collect();
        self.table.store(Arc::new(table.with_health(table.generation + 1, &lives, Millis(now))));
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: &str) -> Reply {
        let mut client = self.client().await;
        client.send(request).await;
        client.reply().await
    }

    /// GET on a connection of its own.
    pub async fn get(&self, target: &str) -> Reply {
        self.ask(&format!("GET {target} HTTP/1.1\r\nhost: shop\r\n\r\n")).await
    }

    /// Open connections to instances, where they are bounded.
    pub fn seats(&self) -> u32 {
        self.table.load().endpoints(0).iter().map(|endpoint| endpoint.live.seats()).sum()
    }

    /// Requests that wait for a place at an instance.
    pub fn waiting(&self) -> u32 {
        self.table.load().endpoints(0).iter().map(|endpoint| endpoint.live.waiting()).sum()
    }

    /// What is known of the instance at this place.
    pub fn live(&self, at: usize) -> Arc<Live> {
        Arc::clone(&self.table.load().endpoints(0)[at].live)
    }

    /// Waits until nothing goes on at any instance.
    pub async fn rests(&self) {
        soon("rest", async {
            while self.table.load().endpoints(0).iter().any(|endpoint| endpoint.live.in_flight() > 0) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// What came of requests by the access log, once it has so many lines.
    pub async fn logged(&self, lines: usize) -> Vec<serde_json::Value> {
        lines_of(self.log.as_ref().expect("set up with a log"), lines).await
    }

    pub async fn drain(self, timeout: Duration) -> Drained {
        soon("the drain", self.plane.drain(timeout)).await
    }

    /// Drains, and what the access log then says of so many requests.
    pub async fn drain_logged(self, timeout: Duration, lines: usize) -> (Drained, Vec<serde_json::Value>) {
        let drained = soon("the drain", self.plane.drain(timeout)).await;
        (drained, lines_of(&self.log.expect("set up with a log"), lines).await)
    }

    /// The account of memory.
    pub fn memory(&self) -> &pointsman::observe::memory::Memory {
        self.book.memory()
    }

    /// A line of the metrics page that starts like this.
    pub fn metric(&self, start: &str) -> Option<String> {
        self.metrics.render().lines().find(|line| line.starts_with(start)).map(str::to_owned)
    }

    /// Waits until a line of the metrics page starts like this.
    pub async fn counts(&self, start: &str) {
        soon(start, async {
            while self.metric(start).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

async fn lines_of(file: &tempfile::NamedTempFile, lines: usize) -> Vec<serde_json::Value> {
    soon("lines of the access log", async {
        loop {
            let text = std::fs::read_to_string(file.path()).unwrap();
            if text.lines().count() >= lines && text.ends_with('\n') {
                let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["result"].take();
                return text.lines().map(line).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn log() -> std::io::Result<(Log, tempfile::NamedTempFile)> {
    let file = tempfile::NamedTempFile::new()?;
    let settings = access_log::Settings { target: Target::File(file.path().into()), ..access_log::Settings::default() };
    // The thread ends when the last worker has let go of its lines.
    let (lines, _thread) = AccessLog::start(&settings)?;
    Ok((Log { lines, fields: Arc::default() }, file))
}

/// An instance as a catalog names it.
pub fn instance(id: &str, addr: SocketAddr, labels: &[(&str, &str)]) -> Instance {
    Instance {
        identity: id.into(),
        id: id.into(),
        service: "web".into(),
        addr,
        host: addr.ip().to_string().into(),
        node: "".into(),
        dc: "".into(),
        labels: labels.iter().copied().collect(),
        tags: [].into(),
        weights: Weights::default(),
        status: Status::Passing,
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
