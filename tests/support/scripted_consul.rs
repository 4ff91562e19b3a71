//! A Consul that does what the test says, with the blocking behaviour of the real one.
//!
//! Index, `wait` and its random sixteenth, what wakes a blocked query (a missing service wakes with strangers until some
//! service went extinct; checks do not wake the list), answers after a restart and after a restored snapshot, answers of a
//! token that may read nothing, errors that carry index 1, the connection limit whose slots linger: all as measured on
//! 1.8.7. It runs in the test's process on a port of its own; the handle changes it at any time.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The handle. Dropping it ends the server and every connection.
pub struct ScriptedConsul {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// Everything a restored snapshot brings back.
#[derive(Clone, Default)]
pub struct Store {
    index: u64,
    services: BTreeMap<String, Service>,
    /// The index at which a service last went extinct; 0: never.
    extinction: u64,
    /// The index of the last registration or deregistration of anything.
    registrations: u64,
}

#[derive(Clone, Default)]
struct Service {
    index: u64,
    instances: BTreeMap<String, Value>,
}

/// What the server does besides answering truthfully.
#[derive(Clone)]
struct Script {
    fail: Option<(u16, String)>,
    fail_next: usize,
    body: Option<String>,
    cut_bodies: bool,
    frozen: bool,
    withdrawn: bool,
    list_forbidden: bool,
    token: Option<String>,
    leader_known: bool,
    last_contact: u64,
    no_index: bool,
    max_connections: usize,
}

struct Shared {
    store: Mutex<Store>,
    script: Mutex<Script>,
    /// Grows with every change of the store.
    changed: watch::Sender<u64>,
    /// Grows with every restored snapshot.
    restored: watch::Sender<u64>,
    /// Grows when every connection is to be cut.
    cut: watch::Sender<u64>,
    requests: Mutex<Vec<String>>,
    slots: AtomicUsize,
    most_slots: AtomicUsize,
}

/// A connection's slot. Queries that outlive their connection keep it, as in Consul.
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One instance to register.
#[derive(Clone, Debug)]
pub struct Registration {
    service: String,
    id: String,
    element: Value,
}

impl Registration {
    /// `id` of `service` at a loopback port, passing, on node `n1`.
    pub fn new(service: &str, id: &str, port: u16) -> Self {
        let element = json!({
            "Node": {"ID": "eab5", "Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1", "TaggedAddresses": null, "Meta": null,
                     "CreateIndex": 10, "ModifyIndex": 11},
            "Service": {"ID": id, "Service": service, "Tags": [], "Address": "127.0.0.1", "Meta": null, "Port": port,
                        "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false,
                        "Proxy": {"MeshGateway": {}, "Expose": {}}, "Connect": {}, "CreateIndex": 14, "ModifyIndex": 14},
            "Checks": [{"Node": "n1", "CheckID": "serfHealth", "Status": "passing", "ServiceID": "", "ServiceName": ""},
                       {"Node": "n1", "CheckID": format!("service:{id}"), "Status": "passing", "ServiceID": id, "ServiceName": service}]
        });
        Self { service: service.to_owned(), id: id.to_owned(), element }
    }

    /// Adds a `Meta` pair.
    pub fn meta(mut self, key: &str, value: &str) -> Self {
        if self.element["Service"]["Meta"].is_null() {
            self.element["Service"]["Meta"] = json!({});
        }
        self.element["Service"]["Meta"][key] = value.into();
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: &str) -> Self {
        self.element["Service"]["Tags"].as_array_mut().expect("tags are a list").push(tag.into());
        self
    }

    /// Sets the weights.
    pub fn weights(mut self, passing: u32, warning: u32) -> Self {
        self.element["Service"]["Weights"] = json!({"Passing": passing, "Warning": warning});
        self
    }

    /// Sets anything, by JSON pointer.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        *self.element.pointer_mut(pointer).expect("the pointer leads somewhere") = value;
        self
    }
}

impl ScriptedConsul {
    /// Starts on a port of its own.
    pub async fn start() -> Self {
        let script = Script {
            fail: None,
            fail_next: 0,
            body: None,
            cut_bodies: false,
            frozen: false,
            withdrawn: false,
            list_forbidden: false,
            token: None,
            leader_known: true,
            last_contact: 0,
            no_index: false,
            max_connections: 200,
        };
        let shared = Arc::new(Shared {
            store: Mutex::new(Store { index: 20, registrations: 11, ..Store::default() }),
            script: Mutex::new(script),
            changed: watch::Sender::new(0),
            restored: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            requests: Mutex::default(),
            slots: AtomicUsize::new(0),
            most_slots: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let addr = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, accepting: Mutex::new(Some(accepting)) }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    // ---- what services do -------------------------------------------------------------------------------------------

    /// Registers or changes an instance. An identical one changes nothing.
    pub fn register(&self, registration: Registration) {
        self.change(|store| {
            let service = store.services.entry(registration.service.clone()).or_default();
            if service.instances.get(&registration.id) == Some(&registration.element) {
                return false;
            }
            store.index += 1;
            service.index = store.index;
            store.registrations = store.index;
            service.instances.insert(registration.id, registration.element);
            true
        });
    }

    /// Deregisters an instance.
    pub fn deregister(&self, service: &str, id: &str) {
        self.change(|store| {
            let Some(entry) = store.services.get_mut(service) else { return false };
            if entry.instances.remove(id).is_none() {
                return false;
            }
            store.index += 1;
            (entry.index, store.registrations) = (store.index, store.index);
            if entry.instances.is_empty() {
                store.services.remove(service);
                store.extinction = store.index;
            }
            true
        });
    }

    /// Sets the state of an instance's own check.
    pub fn set_check(&self, service: &str, id: &str, status: &str) {
        self.change(|store| {
            let entry = store.services.get_mut(service).expect("the service is registered");
            let element = entry.instances.get_mut(id).expect("the instance is registered");
            if element["Checks"][1]["Status"] == status {
                return false;
            }
            element["Checks"][1]["Status"] = status.into();
            store.index += 1;
            entry.index = store.index;
            true
        });
    }

    /// Something else in the cluster: the index grows, no service changes.
    pub fn other_write(&self) {
        self.change(|store| {
            store.index += 1;
            true
        });
    }

    // ---- what goes wrong --------------------------------------------------------------------------------------------

    /// Every answer is this status and text from now on; blocked queries get it at once.
    pub fn fail_with(&self, status: u16, text: &str) {
        self.script(|script| script.fail = Some((status, text.to_owned())));
        self.shared.changed.send_modify(|n| *n += 1);
    }

    /// The next `count` answers are 500.
    pub fn fail_next(&self, count: usize) {
        self.script(|script| script.fail_next = count);
    }

    /// Truth again, in every respect.
    pub fn heal(&self) {
        self.script(|script| {
            (script.fail, script.fail_next, script.body) = (None, 0, None);
            (script.cut_bodies, script.frozen, script.no_index) = (false, false, false);
            (script.leader_known, script.last_contact) = (true, 0);
        });
        self.shared.changed.send_modify(|n| *n += 1);
    }

    /// Every service query is answered with this body from now on, with a growing index.
    pub fn garbage(&self, body: &str) {
        self.script(|script| script.body = Some(body.to_owned()));
        self.touch_all();
    }

    /// Bodies break off in the middle from now on.
    pub fn cut_bodies(&self) {
        self.script(|script| script.cut_bodies = true);
        self.touch_all();
    }

    /// Nothing is answered from now on; connections stay open.
    pub fn freeze(&self) {
        self.script(|script| script.frozen = true);
        self.shared.changed.send_modify(|n| *n += 1);
    }

    /// The token may read nothing from now on: lists come empty, **the index stays** and nobody is woken.
    pub fn withdraw_permission(&self) {
        self.script(|script| script.withdrawn = true);
    }

    /// The token may read again.
    pub fn grant_permission(&self) {
        self.script(|script| script.withdrawn = false);
    }

    /// The list of services is 403.
    pub fn forbid_list(&self) {
        self.script(|script| script.list_forbidden = true);
    }

    /// Only this token is known from now on; another one, or none, is 403 with index 1.
    pub fn require_token(&self, token: &str) {
        self.script(|script| script.token = Some(token.to_owned()));
        self.cut_connections();
    }

    /// `X-Consul-Knownleader` and `X-Consul-Lastcontact` of stale answers.
    pub fn leader(&self, known: bool, last_contact: u64) {
        self.script(|script| (script.leader_known, script.last_contact) = (known, last_contact));
    }

    /// Answers come without an index.
    pub fn hide_index(&self) {
        self.script(|script| script.no_index = true);
    }

    /// More connections than this are closed without a byte.
    pub fn limit_connections(&self, most: usize) {
        self.script(|script| script.max_connections = most);
    }

    /// Closes every connection in the middle of whatever it does.
    pub fn cut_connections(&self) {
        self.shared.cut.send_modify(|n| *n += 1);
    }

    /// A development agent that is restarted: connections cut, the store empty, the index low.
    pub fn restart(&self) {
        *self.store() = Store { index: 11, registrations: 11, ..Store::default() };
        self.cut_connections();
    }

    /// A copy of the store.
    pub fn snapshot(&self) -> Store {
        self.store().clone()
    }

    /// Restores a copy. Blocked queries return at once with the **old** index and body.
    pub fn restore(&self, snapshot: Store) {
        *self.store() = snapshot;
        self.shared.restored.send_modify(|n| *n += 1);
    }

    /// Stops listening and cuts every connection.
    pub fn stop(&self) {
        if let Some(task) = self.accepting.lock().expect("no panic holds it").take() {
            task.abort();
        }
        self.cut_connections();
    }

    /// Listens again on the same port.
    pub async fn resume(&self) {
        let mut listener = TcpListener::bind(self.addr).await;
        for _ in 0..100 {
            if listener.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            listener = TcpListener::bind(self.addr).await;
        }
        let task = tokio::spawn(accept(listener.expect("the port is free again"), Arc::clone(&self.shared)));
        *self.accepting.lock().expect("no panic holds it") = Some(task);
    }

    // ---- what was seen ----------------------------------------------------------------------------------------------

    /// Path and query of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("no panic holds it").clone()
    }

    /// Requests whose path and query hold this text.
    pub fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.contains(part)).count()
    }

    /// Slots taken now, and the most that were.
    pub fn slots(&self) -> (usize, usize) {
        (self.shared.slots.load(Ordering::Acquire), self.shared.most_slots.load(Ordering::Acquire))
    }

    /// Waits until as many requests have come that hold this text; fails after 20 s.
    pub async fn wait_for_requests(&self, part: &str, count: usize) {
        for _ in 0..2_000 {
            if self.count(part) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} requests with {part:?} came: {:?}", self.count(part), self.requests());
    }

    fn change(&self, change: impl FnOnce(&mut Store) -> bool) {
        let changed = change(&mut self.store());
        if changed {
            self.shared.changed.send_modify(|n| *n += 1);
        }
    }

    fn touch_all(&self) {
        self.change(|store| {
            store.index += 1;
            let index = store.index;
            store.services.values_mut().for_each(|service| service.index = index);
            true
        });
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.script.lock().expect("no panic holds it"));
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock().expect("no panic holds it")
    }
}

impl Drop for ScriptedConsul {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let most = shared.script.lock().expect("no panic holds it").max_connections;
        let taken = shared.slots.fetch_add(1, Ordering::AcqRel) + 1;
        shared.most_slots.fetch_max(taken, Ordering::AcqRel);
        let slot = Arc::new(Slot(Arc::clone(&shared)));
        if taken <= most {
            tokio::spawn(serve(stream, Arc::clone(&shared), slot));
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut cut = shared.cut.subscribe();
    cut.mark_unchanged();
    let respond = |request: Request<Incoming>| {
        let (shared, slot) = (Arc::clone(&shared), Arc::clone(&slot));
        // A task of its own: a client that goes away does not end its query, and does not free its slot.
        let query = tokio::spawn(async move {
            let _slot = slot;
            answer(&shared, &request).await
        });
        async move { Ok::<_, Infallible>(query.await.expect("answering does not panic")) }
    };
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond));
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = connection => {}
        _ = cut.changed() => {}
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned();
    shared.requests.lock().expect("no panic holds it").push(target);
    let script = || shared.script.lock().expect("no panic holds it").clone();
    let at_start = script();
    if let Some(error) = refuse(shared, request, &at_start) {
        return error;
    }
    let query = request.uri().query().unwrap_or("");
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
    };
    let stale = query.split('&').any(|pair| pair == "stale");
    let index: u64 = parameter("index").and_then(|text| text.parse().ok()).unwrap_or(0);
    let wait = parameter("wait").map_or(300_000, |text| millis(&text));
    let look = || look(&shared.store.lock().expect("no panic holds it"), request.uri().path(), at_start.withdrawn);
    let (mut changed, mut restored) = (shared.changed.subscribe(), shared.restored.subscribe());
    let mut seen = look();
    if index > 0 {
        let longer = wait + std::process::id() as u64 % (wait / 16 + 1);
        let deadline = tokio::time::Instant::now() + Duration::from_millis(longer);
        while seen.0 <= index || script().frozen {
            tokio::select! {
                _ = changed.changed() => {}
                // The old index and the old body, as the real one.
                _ = restored.changed() => break,
                () = tokio::time::sleep_until(deadline), if !script().frozen => break,
            }
            if let Some(error) = refuse(shared, request, &script()) {
                return error;
            }
            seen = look();
        }
    }
    while script().frozen {
        let _ = changed.changed().await;
    }
    let now = script();
    let body = match &now.body {
        Some(garbage) if request.uri().path().starts_with("/v1/health/service/") => garbage.clone(),
        _ => seen.1,
    };
    good(request, &now, seen.0, stale, body)
}

/// An error instead of an answer.
fn refuse(shared: &Shared, request: &Request<Incoming>, script: &Script) -> Option<Response<Body>> {
    let token = request.headers().get("x-consul-token").and_then(|value| value.to_str().ok());
    if script.token.is_some() && token != script.token.as_deref() {
        return Some(error(403, "ACL not found"));
    }
    if script.list_forbidden && request.uri().path() == "/v1/catalog/services" {
        return Some(error(403, "Permission denied"));
    }
    if let Some((status, text)) = &script.fail {
        return Some(error(*status, text));
    }
    let mut live = shared.script.lock().expect("no panic holds it");
    if live.fail_next > 0 {
        live.fail_next -= 1;
        return Some(error(500, "rpc error making call: EOF"));
    }
    None
}

/// Index and body of a path now.
fn look(store: &Store, path: &str, withdrawn: bool) -> (u64, String) {
    if path == "/v1/catalog/services" {
        let mut names: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        if !withdrawn {
            names.insert("consul", Vec::new());
            for (name, service) in &store.services {
                let tags = service
                    .instances
                    .values()
                    .flat_map(|element| element["Service"]["Tags"].as_array().into_iter().flatten());
                names.insert(name, tags.cloned().collect());
            }
        }
        return (store.registrations.max(1), json!(names).to_string());
    }
    let name = unescape(path.trim_start_matches("/v1/health/service/")).to_lowercase();
    let found = store.services.iter().find(|(key, _)| key.to_lowercase() == name).map(|(_, service)| service);
    let index = match found {
        Some(service) => service.index,
        None if store.extinction > 0 => store.extinction,
        None => store.registrations,
    };
    let elements: Vec<&Value> =
        found.into_iter().filter(|_| !withdrawn).flat_map(|service| service.instances.values()).collect();
    (index.max(1), json!(elements).to_string())
}

fn good(request: &Request<Incoming>, script: &Script, index: u64, stale: bool, body: String) -> Response<Body> {
    let mut response = Response::builder()
        .header("Content-Type", "application/json")
        .header("X-Consul-Effective-Consistency", if stale { "stale" } else { "leader" })
        .header("X-Consul-Knownleader", if stale { script.leader_known } else { true }.to_string())
        .header("X-Consul-Lastcontact", if stale { script.last_contact } else { 0 }.to_string());
    if !script.no_index {
        response = response.header("X-Consul-Index", index);
    }
    let gzip = request.headers().get("accept-encoding").is_some_and(|value| value == "gzip");
    let bytes = if gzip {
        response = response.header("Content-Encoding", "gzip");
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(body.as_bytes()).and_then(|()| writer.finish()).expect("memory does not fail")
    } else {
        body.into_bytes()
    };
    let body = if script.cut_bodies {
        Cut(Some(Bytes::from(bytes[..bytes.len() / 2].to_vec()))).boxed()
    } else {
        Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
    };
    response.body(body).expect("the head is well-formed")
}

/// Every error carries index 1 and an unknown leader, as text.
fn error(status: u16, text: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("X-Consul-Index", "1")
        .header("X-Consul-Knownleader", "false")
        .body(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed())
        .expect("the head is well-formed")
}

fn millis(text: &str) -> u64 {
    let number = |unit: &str| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    number("ms")
        .or_else(|| number("s").map(|n| n * 1_000))
        .or_else(|| number("m").map(|n| n * 60_000))
        .unwrap_or(300_000)
}

fn unescape(text: &str) -> String {
    let (mut out, bytes, mut at) = (Vec::new(), text.as_bytes(), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A body that breaks off after this part.
struct Cut(Option<Bytes>);

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let part = self.0.take().map(|part| Ok(Frame::data(part)));
        Poll::Ready(Some(part.unwrap_or_else(|| Err(std::io::Error::other("cut")))))
    }
}
