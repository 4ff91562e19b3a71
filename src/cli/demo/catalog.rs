//! The demo's embedded catalog: the part of Consul's HTTP interface that a subscriber and a person with curl need,
//! with real blocking queries, over a state in memory. The proxy reads it exactly as it reads a Consul.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The longest blocking query that is honoured.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A registration, in Consul's spelling.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Registration {
    /// Unique; defaults to the name.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The service.
    pub name: String,
    /// Plain tags, or `key=value`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Labels.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// An IP address.
    pub address: String,
    /// 1 to 65,535.
    pub port: u16,
}

#[derive(Clone, Debug)]
struct Entry {
    registration: Registration,
    status: &'static str,
    index: u64,
}

#[derive(Debug, Default)]
struct Services {
    index: u64,
    entries: BTreeMap<String, Entry>,
}

/// Handle on the catalog's state; cheap to clone.
#[derive(Clone, Debug)]
pub struct DemoCatalog {
    state: Arc<watch::Sender<Services>>,
}

impl DemoCatalog {
    /// An empty catalog.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(Services { index: 1, entries: BTreeMap::new() })) }
    }

    /// Adds or replaces an instance, passing.
    pub fn register(&self, mut registration: Registration) {
        if registration.id.is_empty() {
            registration.id.clone_from(&registration.name);
        }
        self.state.send_modify(|services| {
            services.index += 1;
            let entry = Entry { registration, status: "passing", index: services.index };
            services.entries.insert(entry.registration.id.clone(), entry);
        });
    }

    /// Removes an instance; false when it is not there.
    pub fn deregister(&self, id: &str) -> bool {
        self.state.send_if_modified(|services| {
            let removed = services.entries.remove(id).is_some();
            services.index += u64::from(removed);
            removed
        })
    }

    /// Sets the status of an instance's check; unchanged statuses wake nobody.
    pub fn set_status(&self, id: &str, status: &'static str) -> bool {
        self.state.send_if_modified(|services| {
            let index = services.index + 1;
            match services.entries.get_mut(id) {
                Some(entry) if entry.status != status => {
                    entry.status = status;
                    entry.index = index;
                    services.index = index;
                    true
                }
                _ => false,
            }
        })
    }

    /// Every registration, with its status.
    #[must_use]
    pub fn registrations(&self) -> Vec<(Registration, &'static str)> {
        self.state.borrow().entries.values().map(|entry| (entry.registration.clone(), entry.status)).collect()
    }

    /// The HTTP interface.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/health/service/{name}", get(health))
            .route("/v1/catalog/services", get(services))
            .route("/v1/agent/service/register", put(register))
            .route("/v1/agent/service/deregister/{id}", put(deregister))
            .route("/v1/agent/service/maintenance/{id}", put(maintenance))
            .with_state(self.clone())
    }

    /// Waits until `index_of` exceeds the caller's index or its `wait` is over, as Consul's blocking queries do.
    async fn block(&self, blocking: &Blocking, index_of: impl Fn(&Services) -> u64) -> u64 {
        let mut receiver = self.state.subscribe();
        let wait = blocking.wait.as_deref().and_then(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        if let Some(index) = blocking.index.filter(|index| *index > 0) {
            let changed = receiver.wait_for(|services| index_of(services) > index);
            let _ = tokio::time::timeout(wait, changed).await.map(|seen| seen.is_ok());
        }
        let index = index_of(&receiver.borrow());
        index
    }
}

impl Default for DemoCatalog {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Deserialize)]
struct Blocking {
    index: Option<u64>,
    wait: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Maintenance {
    enable: bool,
}

async fn health(
    State(catalog): State<DemoCatalog>,
    Path(name): Path<String>,
    Query(query): Query<Blocking>,
) -> Response {
    // An instance that leaves raises the catalog's index only, so both count.
    let index = catalog.block(&query, |services| services.index).await;
    let entries: Vec<Value> = catalog
        .state
        .borrow()
        .entries
        .values()
        .filter(|entry| entry.registration.name.eq_ignore_ascii_case(&name))
        .map(health_entry)
        .collect();
    indexed(index, Value::Array(entries))
}

async fn services(State(catalog): State<DemoCatalog>, Query(query): Query<Blocking>) -> Response {
    let index = catalog.block(&query, |services| services.index).await;
    let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::from([("consul".to_owned(), Vec::new())]);
    for (registration, _) in catalog.registrations() {
        tags.entry(registration.name).or_default().extend(registration.tags);
    }
    indexed(index, json!(tags))
}

async fn register(State(catalog): State<DemoCatalog>, Json(registration): Json<Registration>) -> Response {
    if registration.address.parse::<std::net::IpAddr>().is_err() || registration.port == 0 {
        return (StatusCode::BAD_REQUEST, "Invalid service address or port\n").into_response();
    }
    catalog.register(registration);
    StatusCode::OK.into_response()
}

async fn deregister(State(catalog): State<DemoCatalog>, Path(id): Path<String>) -> Response {
    catalog.deregister(&id);
    StatusCode::OK.into_response()
}

async fn maintenance(
    State(catalog): State<DemoCatalog>,
    Path(id): Path<String>,
    Query(query): Query<Maintenance>,
) -> Response {
    catalog.set_status(&id, if query.enable { "maintenance" } else { "passing" });
    StatusCode::OK.into_response()
}

fn health_entry(entry: &Entry) -> Value {
    let Registration { id, name, tags, meta, address, port } = &entry.registration;
    let (check, status) = match entry.status {
        "maintenance" => (format!("_service_maintenance:{id}"), "critical"),
        status => (format!("service:{id}"), status),
    };
    json!({
        "Node": {"ID": "", "Node": "demo", "Address": address, "Datacenter": "demo", "Meta": null,
                 "CreateIndex": 1, "ModifyIndex": 1},
        "Service": {"ID": id, "Service": name, "Tags": tags, "Address": address, "Meta": meta, "Port": port,
                    "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false,
                    "CreateIndex": entry.index, "ModifyIndex": entry.index},
        "Checks": [{"Node": "demo", "CheckID": check, "Name": "demo", "Status": status,
                    "ServiceID": id, "ServiceName": name, "Type": "http"}],
    })
}

fn indexed(index: u64, body: Value) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("x-consul-index", HeaderValue::from(index));
    headers.insert("x-consul-knownleader", HeaderValue::from_static("true"));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    (headers, Json(body)).into_response()
}

/// Consul's durations as the subscriber sends them: `55s`, `5m`, `250ms`.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(count * 60)),
        _ => None,
    }
}
