//! A Consul that does what the test says, with the blocking behaviour of the real one.
//!
//! Index, `wait` and its random sixteenth, what wakes a blocked query (a missing service wakes with strangers until some
//! service went extinct; checks do not wake the list), answers after a restart and after a restored snapshot, answers of a
//! token that may read nothing, errors that carry index 1, the connection limit whose slots linger: all as measured on
//! 1.8.7. It runs in the test's process on a port of its own; the handle changes it at any time.
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::unused;

use server::accept;

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
    /// The next answer about a service says an index below the one it has.
    lag_next: bool,
    body: Option<String>,
    cut_bodies: bool,
    frozen: bool,
    withdrawn: bool,
    hidden: bool,
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
            lag_next: false,
            body: None,
            cut_bodies: false,
            frozen: false,
            withdrawn: false,
            hidden: false,
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
        let listener = TcpListener::bind(unused()).await.expect("a port of loopback");
        let addr = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, accepting: Mutex::new(Some(accepting)) }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
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

    /// The next answer about a service comes of a server that lags behind: its index is lower by one, its body the same.
    pub fn lag_next(&self) {
        self.script(|script| script.lag_next = true);
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

    /// The token may read no node from now on: services come empty with a new index, the list still names them.
    pub fn hide_instances(&self) {
        self.script(|script| script.hidden = true);
        self.touch_all();
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
        self.stop_listening();
        self.cut_connections();
    }

    /// Stops listening; connections that are open stay.
    pub fn stop_listening(&self) {
        if let Some(task) = self.accepting.lock().expect("no panic holds it").take() {
            task.abort();
        }
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
