//! `GET /v1/table`: services, instances with labels and live state, pools with routable counts.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::health::State as Health;
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
    let file = |pools: &FilePools| pools.pools.iter().map(|shown| pool(pools, shown)).collect::<Vec<_>>();
    json!({
        "service": name,
        "in_catalog": known.is_some(),
        "catalog_index": known.map(|service| service.catalog_index),
        "instances": instances.iter().map(|endpoint| instance(endpoint, now)).collect::<Vec<_>>(),
        "files": files
            .map(|(of, pools)| json!({ "file": of.ruleset.source.name, "pools": file(pools) }))
            .collect::<Vec<_>>(),
    })
}

fn instance(endpoint: &Endpoint, now: Millis) -> Value {
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
        "health": health(live.state(), now),
        "check": live.verdict(),
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

fn pool(file: &FilePools, pool: &Pool) -> Value {
    let id = |at: &u32| file.endpoints().get(*at as usize).map(|endpoint| &*endpoint.instance.id);
    let levels = pool.levels.iter().map(|level| {
        json!({ "rank": level.rank, "load": level.load, "total": level.total, "routable": level.candidates.len() })
    });
    json!({
        "pool": &*pool.name,
        "variant": pool.variant,
        "members": pool.members.len(),
        "routable": pool.routable,
        "min": pool.min,
        "balance": pool.balance,
        "levels": levels.collect::<Vec<_>>(),
        "ejected": pool.ejected.iter().filter_map(id).collect::<Vec<_>>(),
        "eject_refused": pool.refused.iter().filter_map(id).collect::<Vec<_>>(),
    })
}
