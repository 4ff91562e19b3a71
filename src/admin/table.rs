//! `GET /v1/table`: services, instances with labels and live state, pools with routable counts.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::health::State as Health;
use crate::engine::policy::Eject;
use crate::engine::snapshot::Endpoint;
use crate::engine::table::{FilePools, Pool, Table};
use crate::engine::time::Millis;

use super::{Admin, problem};

/// Which services, and how many at most.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    service: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Services a page, unless asked otherwise.
const PAGE: usize = 100;
/// And at most.
const MOST: usize = 1_000;

/// Services in name order; `next` is the `after` of the following page. A service that rules name and the catalog does
/// not have is shown without instances.
pub async fn show(State(admin): State<Admin>, Query(asked): Query<Asked>) -> Response {
    let table = admin.table.load_full();
    let now = admin.clock.now();
    let mut names: Vec<&str> = table.snapshot.services().iter().map(|service| &*service.name).collect();
    names.extend(table.router.files.iter().map(|file| &*file.service));
    names.sort_unstable();
    names.dedup();
    if let Some(wanted) = &asked.service {
        names.retain(|name| name == wanted);
        if names.is_empty() {
            return problem(StatusCode::NOT_FOUND, "neither the catalog nor a rule names this service");
        }
    }
    if let Some(after) = &asked.after {
        names.retain(|name| *name > after.as_str());
    }
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, MOST);
    let next = names.get(limit).and_then(|_| names.get(limit - 1)).copied();
    names.truncate(limit);
    let services: Vec<Value> = names.iter().map(|name| service(&table, name, now)).collect();
    Json(json!({
        "generation": table.generation,
        "published_ms_ago": now.since(table.published),
        "place": table.place.labels,
        "services": services,
        "next": next,
    }))
    .into_response()
}

fn service(table: &Table, name: &str, now: Millis) -> Value {
    let known = table.snapshot.service(name);
    let instances = known.map_or(&[][..], |service| &service.endpoints);
    let files = table.router.files.iter().zip(&table.files).filter(|(file, _)| &*file.service == name);
    let window = table.router.files.iter().find(|file| &*file.service == name).map(|file| file.eject.window);
    let recent = Recent { now, window: window.unwrap_or_else(|| Eject::default().window) };
    let file = |pools: &FilePools| pools.pools.iter().map(|shown| pool(pools, shown, recent)).collect::<Vec<_>>();
    json!({
        "service": name,
        "in_catalog": known.is_some(),
        "catalog_index": known.map(|service| service.catalog_index),
        "instances": instances.iter().map(|endpoint| instance(endpoint, recent)).collect::<Vec<_>>(),
        "versions": versions(instances, recent),
        "files": files
            .map(|(of, pools)| json!({ "file": of.ruleset.source.name, "pools": file(pools) }))
            .collect::<Vec<_>>(),
    })
}

/// The sliding window that ejection judges by.
#[derive(Clone, Copy)]
struct Recent {
    now: Millis,
    window: u64,
}

impl Recent {
    /// Requests and failures of these endpoints, and how many of them are out by their evidence.
    fn figures<'e>(self, endpoints: impl Iterator<Item = &'e Endpoint>) -> Value {
        let (mut count, mut out, mut requests, mut failed) = (0u64, 0u64, 0u64, 0u64);
        for endpoint in endpoints {
            let tally = endpoint.live.recent(self.now, self.window);
            count += 1;
            out += u64::from(!matches!(endpoint.live.state(), Health::Healthy { .. }));
            requests += u64::from(tally.requests);
            failed += u64::from(tally.failed);
        }
        json!({ "endpoints": count, "out": out, "requests": requests, "failed": failed, "window_ms": self.window })
    }
}

/// Figures by the label `version`, in its order.
fn versions(endpoints: &[Endpoint], recent: Recent) -> Value {
    let version = |endpoint: &Endpoint| endpoint.instance.labels.value("version").unwrap_or_default().to_owned();
    let mut groups: BTreeMap<String, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        groups.entry(version(endpoint)).or_default().push(endpoint);
    }
    let figures = groups.into_iter().map(|(version, group)| (version, recent.figures(group.into_iter())));
    Value::Object(figures.collect())
}

fn instance(endpoint: &Endpoint, recent: Recent) -> Value {
    let (instance, live) = (&endpoint.instance, &endpoint.live);
    json!({
        "id": &*instance.id,
        "address": instance.addr.to_string(),
        "host": &*instance.host,
        "node": &*instance.node,
        "dc": &*instance.dc,
        "labels": instance.labels,
        "tags": instance.tags,
        "status": instance.status,
        "graced": endpoint.graced,
        "weight": endpoint.weight(),
        "available": live.available(),
        "health": health(live.state(), recent.now),
        "recent": live.recent(recent.now, recent.window),
        "check": live.verdict(),
        "check_failure": live.check_failure().map(|failure| failure.to_string()),
        "drained": live.drained(),
        "in_flight": live.in_flight(),
    })
}

/// The state, with durations in place of the process's own clock.
fn health(state: Health, now: Millis) -> Value {
    match state {
        Health::Healthy { since } => json!({ "state": "healthy", "for_ms": now.since(since) }),
        Health::Ejected { until } => json!({ "state": "ejected", "left_ms": until.since(now) }),
        Health::Probing { permit_until } => json!({ "state": "probing", "permit_left_ms": permit_until.since(now) }),
    }
}

fn pool(file: &FilePools, pool: &Pool, recent: Recent) -> Value {
    let members = pool.members.iter().filter_map(|at| file.endpoints().get(*at as usize));
    let id = |at: &u32| file.endpoints().get(*at as usize).map(|endpoint| &*endpoint.instance.id);
    let levels = pool.levels.iter().map(|level| {
        json!({ "rank": level.rank, "load": level.load, "total": level.total, "routable": level.candidates.len() })
    });
    json!({
        "pool": &*pool.name,
        "variant": pool.variant,
        "members": pool.members.len(),
        "recent": recent.figures(members),
        "routable": pool.routable,
        "min": pool.min,
        "balance": pool.balance,
        "levels": levels.collect::<Vec<_>>(),
        "ejected": pool.ejected.iter().filter_map(id).collect::<Vec<_>>(),
        "eject_refused": pool.refused.iter().filter_map(id).collect::<Vec<_>>(),
    })
}
