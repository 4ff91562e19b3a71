//! A data plane on loopback, clients that write raw bytes, and instances with any manners.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::health::Transition;
use pointsman::engine::instance::{Instance, Status, Weights};
use pointsman::engine::locality::Place;
use pointsman::engine::route::Router;
use pointsman::engine::rules;
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::Millis;
use pointsman::forward::{Settings, Shared};
use pointsman::observe::metrics::Metrics;
use pointsman::observe::transitions::{Moved, Transitions};
use pointsman::server::{DataPlane, Drained, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub transitions: Arc<Recorded>,
    table: Arc<ArcSwap<Table>>,
    live: Mutex<LiveSet>,
    plane: DataPlane,
}

/// How a data plane is started.
pub struct Setup {
    pub rules: String,
    pub instances: Vec<Instance>,
    pub settings: Settings,
    pub limits: Limits,
    pub workers: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rules: ONE_POOL.into(),
            instances: Vec::new(),
            settings: Settings::default(),
            limits: Limits::default(),
            workers: 1,
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
        let shared = Shared {
            table: Arc::clone(&table),
            settings: Arc::new(self.settings),
            metrics: Arc::clone(&metrics),
            access_log: None,
            transitions: reports,
            ready: Arc::new(AtomicBool::new(true)),
            origin: Instant::now() - Duration::from_secs(600),
            seed: 7,
            workers: self.workers,
        };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let plane = DataPlane::start(&[any], &shared, &self.limits).await.unwrap();
        Proxy { address: plane.addresses()[0], metrics, transitions, table, live: Mutex::new(live), plane }
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

    pub async fn drain(self, timeout: Duration) -> Drained {
        soon("the drain", self.plane.drain(timeout)).await
    }

    /// A line of the metrics page that starts like this.
    pub fn metric(&self, start: &str) -> Option<String> {
        self.metrics.render().lines().find(|line| line.starts_with(start)).map(str::to_owned)
    }
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

/// A client's connection, byte by byte.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Default)]
pub struct Reply {
    /// 0: the connection ended before a whole head.
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body was as long as its framing says.
    pub whole: bool,
    /// Informational heads before the answer.
    pub informational: Vec<u16>,
}

impl Reply {
    /// All values of a field, joined by `, `.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Writes; a peer that has closed is not an error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("a write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// The next answer to anything but HEAD.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    pub async fn reply_to(&mut self, method: &str) -> Reply {
        let mut reply = Reply::default();
        loop {
            let Some(head) = self.head().await else { return reply };
            let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
            if (100..200).contains(&status) && status != 101 {
                reply.informational.push(status);
                continue;
            }
            (reply.status, reply.head) = (status, head);
            break;
        }
        let bodyless = method == "HEAD" || matches!(reply.status, 101 | 204 | 304);
        let chunked = reply.field("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let length = reply.field("content-length").map(|length| length.parse::<usize>().expect("a length"));
        (reply.body, reply.whole) = match (bodyless, chunked, length) {
            (true, ..) => (Vec::new(), true),
            (false, true, _) => self.chunks().await,
            (false, false, Some(length)) => {
                let whole = self.fill(length).await;
                let cut = length.min(self.read.len());
                (self.read.drain(..cut).collect(), whole)
            }
            (false, false, None) => {
                while self.more().await {}
                (std::mem::take(&mut self.read), true)
            }
        };
        reply
    }

    /// Whether the peer closes now; bytes before the end are an error.
    pub async fn is_closed(&mut self) -> bool {
        assert_eq!(self.read, b"", "nothing is left over");
        !self.more().await && self.read.is_empty()
    }

    /// Exactly so many raw bytes.
    pub async fn raw(&mut self, length: usize) -> Vec<u8> {
        assert!(self.fill(length).await, "the connection ended after {} bytes", self.read.len());
        self.read.drain(..length).collect()
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..at + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else { return (body, false) };
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            if !self.fill(size + 2).await {
                return (body, false);
            }
            body.extend(self.read.drain(..size));
            assert_eq!(self.read.drain(..2).collect::<Vec<_>>(), b"\r\n");
            if size == 0 {
                return (body, true);
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.read.len() < length {
            if !self.more().await {
                return false;
            }
        }
        true
    }

    /// Reads some more; false at the end (a reset counts as one).
    async fn more(&mut self) -> bool {
        let read = soon("an answer", self.stream.read_buf(&mut self.read)).await;
        matches!(read, Ok(n) if n > 0)
    }
}

/// A request as an instance got it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// The number of the request on its connection, from 0.
    pub turn: usize,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    pub fn field(&self, name: &str) -> Option<String> {
        Reply { head: self.head.clone(), ..Reply::default() }.field(name)
    }
}

/// What an instance does with a request.
pub enum Act {
    /// Writes and keeps the connection.
    Write(Vec<u8>),
    /// Writes and closes.
    WriteThenClose(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Says nothing more, and keeps the connection open.
    Hang,
}

/// 200 with this text.
pub fn ok(text: &str) -> Act {
    Act::Write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes())
}

/// A bare status.
pub fn status(code: u16) -> Act {
    Act::Write(format!("HTTP/1.1 {code} Status\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

/// A scripted instance.
pub struct Scripted {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Reads whole requests and acts on each.
    pub async fn http(act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (all, act) = (Arc::clone(&seen), Arc::new(act));
        let mut scripted = Self::raw(move |stream, connection| {
            let (all, act) = (Arc::clone(&all), Arc::clone(&act));
            async move { serve(stream, connection, &all, &*act).await }
        })
        .await;
        scripted.seen = seen;
        scripted
    }

    /// Hands each connection over with its number.
    pub async fn raw<F: Future<Output = ()> + Send + 'static>(
        manner: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::on(listener, manner)
    }

    /// As `raw`, on a listener of the test's own.
    pub fn on<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        manner: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let _ = stream.set_nodelay(true);
                open.spawn(manner(stream, counted.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { address, seen: Arc::default(), connections, task }
    }

    /// Echoes method, target and body.
    pub async fn echo() -> Self {
        Self::http(|seen| ok(&format!("{} {}", seen.line(), String::from_utf8_lossy(&seen.body)))).await
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Stops as if killed: the listener and all connections are gone.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(mut stream: TcpStream, connection: usize, all: &Mutex<Vec<Seen>>, act: &(dyn Fn(&Seen) -> Act + Sync)) {
    let mut read = Vec::new();
    for turn in 0.. {
        let Some(seen) = read_request(&mut stream, &mut read, connection, turn).await else { return };
        all.lock().unwrap().push(seen.clone());
        match act(&seen) {
            Act::Write(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::WriteThenClose(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Act::Reset => return reset(&stream),
            Act::Hang => std::future::pending().await,
        }
    }
}

/// Makes the coming close a reset.
pub fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// One whole request; `None` at the end of the connection.
pub async fn read_request(stream: &mut TcpStream, read: &mut Vec<u8>, connection: usize, turn: usize) -> Option<Seen> {
    let head = loop {
        if let Some(at) = find(read, b"\r\n\r\n") {
            break String::from_utf8_lossy(&read.drain(..at + 4).collect::<Vec<_>>()).into_owned();
        }
        more(stream, read).await?;
    };
    let mut seen = Seen { head, body: Vec::new(), connection, turn };
    if let Some(length) = seen.field("content-length") {
        let length: usize = length.parse().expect("a length");
        while read.len() < length {
            more(stream, read).await?;
        }
        seen.body = read.drain(..length).collect();
    } else if seen.field("transfer-encoding").is_some() {
        loop {
            let at = loop {
                match find(read, b"\r\n") {
                    Some(at) => break at,
                    None => more(stream, read).await?,
                }
            };
            let line = String::from_utf8_lossy(&read.drain(..at + 2).collect::<Vec<_>>()).into_owned();
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            while read.len() < size + 2 {
                more(stream, read).await?;
            }
            seen.body.extend(read.drain(..size));
            read.drain(..2);
            if size == 0 {
                break;
            }
        }
    }
    Some(seen)
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(read).await, Ok(n) if n > 0).then_some(())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
