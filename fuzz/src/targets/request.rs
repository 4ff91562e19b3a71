//! A client's bytes through the whole path to an instance that records. What the instance reads, by the strictest
//! parser, has to be what the proxy decided on: the proxy writes its method, host and path into fields of the request.

use std::hash::RandomState;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::instance::{Instance, Status, Weights};
use pointsman::engine::locality::Place;
use pointsman::engine::route::Router;
use pointsman::engine::rules;
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::Millis;
use pointsman::forward::patience::Patience;
use pointsman::forward::{Settings, Shared};
use pointsman::observe::limit_book::Book;
use pointsman::observe::metrics::Metrics;
use pointsman::observe::transitions::Transitions;
use pointsman::server::{DataPlane, Limits, Listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::paths::walked;
use super::strict::{self, Message};

/// `/admin` is for nobody; everything else goes to the instance, which is told what was decided on.
const RULES: &str = r#"
service: web
pools: {all: id exists}
headers: {request: {set: {x-method: "{method}", x-host: "{host}", x-path: "{path}"}}}
rules:
  - {name: admin, when: path under "/admin", respond: {status: 403, body: "no\n"}}
  - {name: all, to: [all]}
"#;

/// Ends what the input leaves open, so that nobody waits for long.
const LAST: &[u8] = b"\r\n\r\nGET /last HTTP/1.1\r\nhost: last\r\nconnection: close\r\n\r\n";

/// How many inputs are under way at once in [`all`].
const AT_ONCE: usize = 64;

struct Ground {
    runtime: Runtime,
    proxy: SocketAddr,
    wrong: Arc<Mutex<Vec<String>>>,
    _plane: DataPlane,
}

/// Sends these bytes.
pub fn request(bytes: &[u8]) {
    all(vec![bytes.to_vec()]);
}

/// Sends all of these, many at a time, each on a connection of its own.
pub fn all(inputs: Vec<Vec<u8>>) {
    let ground = ground();
    ground.runtime.block_on(async {
        let mut open = tokio::task::JoinSet::new();
        for input in inputs {
            if open.len() >= AT_ONCE {
                open.join_next().await;
            }
            open.spawn(send(ground.proxy, input));
        }
        while open.join_next().await.is_some() {}
    });
    let wrong = ground.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let wrong = Arc::default();
        let (proxy, plane) = runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let instance = listener.local_addr().unwrap();
            tokio::spawn(record(listener, Arc::clone(&wrong)));
            start(instance).await
        });
        Ground { runtime, proxy, wrong, _plane: plane }
    })
}

async fn start(address: SocketAddr) -> (SocketAddr, DataPlane) {
    let (set, found) = rules::parse_files(&[Source::new("web.yaml", RULES)]);
    assert!(!found.has_errors(), "{}", found.render());
    let router = Router::compile(&set).unwrap_or_else(|found| panic!("{}", found.render()));
    let instance = Instance {
        identity: "web-1".into(),
        id: "web-1".into(),
        service: "web".into(),
        addr: address,
        host: address.ip().to_string().into(),
        node: "".into(),
        dc: "".into(),
        labels: std::iter::empty::<(&str, &str)>().collect(),
        tags: [].into(),
        weights: Weights::default(),
        status: Status::Passing,
    };
    let service = ServiceSnapshot::build("web".into(), 1, vec![Arc::new(instance)], &mut LiveSet::default(), Millis(0));
    let table = Table::build(1, Snapshot::new([service]), Arc::new(router), Place::default(), Millis(0)).unwrap();
    let settings = Settings {
        patience: Patience { idle: 60, ..Patience::default() },
        upgrades: Vec::new(),
        ..Settings::default()
    };
    let limits = Limits { head: 60, keep_alive: 60, write_idle: 500, ..Limits::default() };
    let shared = Shared {
        table: Arc::new(ArcSwap::from_pointee(table)),
        settings: Arc::new(settings),
        metrics: Metrics::new(1, pointsman::observe::metrics::Settings::default()),
        access_log: None,
        traces: None,
        transitions: Transitions::channel().0,
        watch: pointsman::forward::watch::Watching::default(),
        trusts: Arc::default(),
        ready: Arc::new(AtomicBool::new(true)),
        origin: Instant::now() - Duration::from_secs(600),
        seed: 7,
        workers: 1,
        book: Arc::new(Book::new(1, RandomState::new())),
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let plane = DataPlane::start(vec![Listen::plain(any)], &shared, &limits).await.unwrap();
    (plane.addresses()[0], plane)
}

async fn send(proxy: SocketAddr, input: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(proxy).await else { return };
    let _ = stream.set_nodelay(true);
    let (mut reading, mut writing) = stream.split();
    let write = async {
        let _ = writing.write_all(&input).await;
        let _ = writing.write_all(LAST).await;
    };
    let read = async {
        let mut scratch = vec![0; 16 * 1024];
        while matches!(reading.read(&mut scratch).await, Ok(n) if n > 0) {}
    };
    // The proxy closes within its limits; should it not, the next input is not kept waiting.
    let _ = tokio::time::timeout(Duration::from_secs(2), async { tokio::join!(write, read) }).await;
}

/// An instance that reads strictly and answers everything with 200.
async fn record(listener: TcpListener, wrong: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let wrong = Arc::clone(&wrong);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let mut read = Vec::new();
            loop {
                match strict::request(&read).and_then(|found| found.map(|f| judged(f.0).map(|()| f.1)).transpose()) {
                    Ok(Some(length)) => {
                        read.drain(..length);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Ok(None) => {}
                    Err(why) => {
                        return wrong.lock().unwrap().push(format!("{why}: {}", read.escape_ascii()));
                    }
                }
                if !matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
                    return;
                }
            }
        });
    }
}

/// Whether what the instance read is what the proxy decided on.
fn judged(message: Message) -> Result<(), String> {
    let told = |name: &str| message.one(name).ok_or_else(|| format!("no `{name}`"));
    let (method, path) = (told("x-method")?, told("x-path")?);
    let asked = message.one("host").unwrap_or_default().to_ascii_lowercase();
    let bare = asked.strip_prefix('[').map_or_else(
        || asked.split(':').next().unwrap_or("").trim_end_matches('.').to_owned(),
        |rest| format!("[{}]", rest.split(']').next().unwrap_or("")),
    );
    let segments = walked(message.path().as_bytes());
    // Only a client of HTTP/1.0 may name no host; the instance then gets its own address.
    let host = message.one("x-host").unwrap_or_else(|| "127.0.0.1".to_owned());
    if method != message.method || host != bare || segments != walked(path.as_bytes()) {
        return Err(format!("decided on {method} {host} {path}"));
    }
    let admin: Vec<u16> = "admin".bytes().map(u16::from).collect();
    if segments.first() == Some(&admin) {
        return Err("a rule was slipped past".to_owned());
    }
    Ok(())
}
