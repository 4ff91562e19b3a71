//! From one element of `/v1/health/service/:name` to an instance that is not resolved yet. Pure (CATALOGS.md L6, M1–M5, P8).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Settings;
use super::labels;
use crate::engine::instance::{Instance, Status, Weights};
use crate::engine::label::Text;

/// An answer's elements, read one by one.
#[derive(Debug, Default)]
pub struct Entries {
    /// Those that can be used.
    pub drafts: Vec<Draft>,
    /// Identities that are named with content that cannot be used: they stay as they were.
    pub kept: Vec<Text>,
    /// Why, for the log.
    pub problems: Vec<String>,
    /// `null`, or an element that could not be read at all.
    pub flawed: bool,
    /// Unknown check states and unusable weights.
    pub oddities: usize,
}

/// An instance whose host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// An IP without brackets, or a name.
    pub host: String,
    /// 1 to 65,535.
    pub port: u16,
    /// Everything else; its `addr` means nothing yet.
    pub instance: Instance,
}

/// Where an answer comes from, as far as the answer does not say it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'s> {
    /// Namespace asked for.
    pub namespace: &'s str,
    /// Partition asked for.
    pub partition: &'s str,
    /// Peer asked for.
    pub peer: &'s str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Element {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Node {
    node: String,
    address: Option<String>,
    datacenter: Option<String>,
    tagged_addresses: Option<BTreeMap<String, String>>,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    kind: Option<String>,
    tags: Option<Vec<String>>,
    address: Option<String>,
    tagged_addresses: Option<BTreeMap<String, Tagged>>,
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    port: i64,
    weights: Option<ConsulWeights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Tagged {
    address: String,
    port: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConsulWeights {
    passing: i64,
    warning: i64,
}

impl Default for ConsulWeights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// One check. What decides is its ID and its status.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(super) struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    status: String,
}

/// What is left of an element that cannot be read: who it is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    node: NamedNode,
    service: NamedService,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NamedNode {
    node: String,
    datacenter: Option<String>,
}

#[derive(Deserialize)]
struct NamedService {
    #[serde(rename = "ID")]
    id: String,
}

/// Reads a body. Elements are read one by one; a bad one is passed over.
///
/// # Errors
/// No list, trailing garbage, or more bad elements than good ones: the answer is refused as a whole.
pub fn read(body: &[u8], settings: &Settings, origin: Origin<'_>) -> Result<Entries, String> {
    let list: Option<Vec<&RawValue>> =
        serde_json::from_slice(body).map_err(|error| format!("it is not a list of instances: {error}"))?;
    let Some(list) = list else { return Ok(Entries { flawed: true, ..Entries::default() }) };
    let mut out = Entries::default();
    let mut bad = 0;
    for element in &list {
        match serde_json::from_str::<Element>(element.get()) {
            Ok(element) => bad += usize::from(!add(element, settings, origin, &mut out)),
            Err(error) => {
                bad += 1;
                match serde_json::from_str::<Named>(element.get()) {
                    Ok(named) => {
                        let dc = named.node.datacenter.as_deref().unwrap_or("");
                        let identity = identity(dc, origin, &named.node.node, &named.service.id);
                        out.problems.push(format!("{identity}: {error}"));
                        out.kept.push(identity);
                    }
                    Err(_) => {
                        out.flawed = true;
                        out.problems.push(format!("an element that is no instance: {error}"));
                    }
                }
            }
        }
    }
    if bad * 2 > list.len() {
        return Err(format!("{bad} of {} instances are unusable; first: {}", list.len(), out.problems[0]));
    }
    Ok(out)
}

/// Adds one element; false when it cannot be used.
fn add(element: Element, settings: &Settings, origin: Origin<'_>, out: &mut Entries) -> bool {
    let Element { node, service, checks } = element;
    let meta = service.meta.clone().unwrap_or_default();
    let front = meta.contains_key("pointsman-id") && meta.get("pointsman-front").is_some_and(|v| v == "true");
    if front || !settings.proxies && service.kind.as_deref().is_some_and(|kind| !kind.is_empty()) {
        return true;
    }
    let dc = node.datacenter.clone().unwrap_or_default();
    let identity = identity(&dc, origin, &node.node, &service.id);
    let (host, port) = match endpoint(&node, &service, &settings.address_from) {
        Ok(endpoint) => endpoint,
        Err(problem) => {
            out.problems.push(format!("{identity}: {problem}"));
            out.kept.push(identity);
            return false;
        }
    };
    let (status, unknown) = worst(checks.as_deref().unwrap_or(&[]));
    let (weights, bad_weight) = weights(service.weights.as_ref(), &meta, &settings.ok_states);
    out.oddities += unknown + usize::from(bad_weight);
    let tags = service.tags.unwrap_or_default();
    let node_meta = node.meta.unwrap_or_default();
    let instance = Instance {
        identity,
        id: service.id.into(),
        service: service.service.into(),
        addr: ([0, 0, 0, 0], port).into(),
        host: host.as_str().into(),
        node: node.node.into(),
        dc: dc.into(),
        labels: labels::map(&meta, &tags, &node_meta, settings),
        tags: tags.into_iter().map(Text::from).collect::<Arc<[Text]>>(),
        weights,
        status,
    };
    out.drafts.push(Draft { host, port, instance });
    true
}

/// Where to connect (M2).
fn endpoint(node: &Node, service: &Service, from: &str) -> Result<(String, u16), String> {
    let own = service.address.as_deref().filter(|address| !address.is_empty());
    let default = || (own.or(node.address.as_deref()).unwrap_or(""), service.port);
    let (address, port) = if from == "service" {
        default()
    } else if let Some(tagged) = service.tagged_addresses.as_ref().and_then(|all| all.get(from)) {
        (tagged.address.as_str(), tagged.port)
    } else if let Some(address) = node.tagged_addresses.as_ref().and_then(|all| all.get(from)) {
        (address.as_str(), service.port)
    } else {
        default()
    };
    let host = address.trim().strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address.trim());
    let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| format!("port {port}"))?;
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(format!("address {host} is no address")),
        Ok(_) => Ok((host.to_owned(), port)),
        Err(_) if host_name(host) => Ok((host.to_owned(), port)),
        Err(_) => Err(format!("address {address:?} is neither an IP nor a host name")),
    }
}

fn host_name(host: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    !host.is_empty() && host.len() <= 253 && host.split('.').all(label)
}

/// The worst of all checks (M4), and how many states nobody knows.
pub(super) fn worst(checks: &[Check]) -> (Status, usize) {
    let mut unknown = 0;
    let each = checks.iter().map(|check| {
        if check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:") {
            return Status::Maintenance;
        }
        match check.status.as_str() {
            "passing" => Status::Passing,
            "warning" => Status::Warning,
            "maintenance" => Status::Maintenance,
            "critical" => Status::Critical,
            _ => {
                unknown += 1;
                Status::Critical
            }
        }
    });
    let worst = each.max().unwrap_or_default();
    (worst, unknown)
}

/// Weights by state (M5), and whether `Meta.weight` had a value that cannot be used.
fn weights(given: Option<&ConsulWeights>, meta: &BTreeMap<String, String>, ok: &[Status]) -> (Weights, bool) {
    let default = ConsulWeights::default();
    let given = given.unwrap_or(&default);
    let bounded = |weight: i64| weight.clamp(0, 65_535) as u32;
    let mut weights = Weights { passing: bounded(given.passing), warning: bounded(given.warning) };
    let mut bad = false;
    if let Some(text) = meta.get("weight") {
        match text.trim().parse::<u32>() {
            Ok(weight @ 1..=65_535) => weights.passing = weight,
            _ => bad = true,
        }
    }
    if !ok.contains(&Status::Passing) {
        weights.passing = 0;
    }
    if !ok.contains(&Status::Warning) {
        weights.warning = 0;
    }
    (weights, bad)
}

/// Unique over everything (M1): service IDs are unique on one agent only.
fn identity(dc: &str, origin: Origin<'_>, node: &str, id: &str) -> Text {
    let escape = |part: &str| part.replace('%', "%25").replace('/', "%2F");
    let parts = [dc, origin.namespace, origin.partition, origin.peer, node, id].map(escape);
    format!("consul/{}", parts.join("/")).into()
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
