//! Made-up fleets for the benchmarks: services, instances, rule files.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::sync::Arc;

use pointsman::engine::diagnostic::Source;
use pointsman::engine::instance::{Instance, Status, Weights};
use pointsman::engine::label::Text;
use pointsman::engine::locality::Place;
use pointsman::engine::route::Router;
use pointsman::engine::rules;
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::Millis;

/// Instances of one service, with the labels that real ones have.
pub fn instances(service: &str, count: usize) -> Vec<Arc<Instance>> {
    let name: Text = service.into();
    (0..count)
        .map(|at| {
            let id: Text = format!("{service}-{at}").into();
            let labels = [
                ("version", if at % 10 == 0 { "1.3.0" } else { "1.2.7" }),
                ("env", "prod"),
                ("region", if at % 2 == 0 { "eu" } else { "us" }),
                ("zone", ["a", "b", "c"][at % 3]),
                ("team", "checkout"),
                ("commit", ["3f2a9c1", "77b0e4d"][at % 2]),
            ];
            Arc::new(Instance {
                identity: format!("consul/dc1/default/node-{at}/{service}-{at}").into(),
                id,
                service: Arc::clone(&name),
                addr: ([10, (at >> 16) as u8, (at >> 8) as u8, at as u8], 8080).into(),
                host: format!("10.{}.{}.{}", at >> 16 & 255, at >> 8 & 255, at & 255).into(),
                node: format!("node-{at}").into(),
                dc: "dc1".into(),
                labels: labels.into_iter().collect(),
                tags: [Text::from("http"), Text::from("blue")].into(),
                weights: Weights::default(),
                status: Status::Passing,
            })
        })
        .collect()
}

/// One rule file for each service.
pub fn router(services: usize) -> Arc<Router> {
    let file = |at: usize| {
        let text = format!(
            "service: svc-{at}\nhosts: [svc-{at}.internal]\nlocality: {{prefer: [region, zone]}}\npools:\n  stable: version < 1.3 and env == prod\n  gray: version >= 1.3 and env == prod\nrules:\n  - name: testers\n    when: header.x-user-group == test\n    to: [gray, stable]\n  - name: ramp\n    split: {{gray: 5%, stable: 95%}}\n"
        );
        Source::new(format!("rules/svc-{at}.yaml"), text)
    };
    let sources: Vec<_> = (0..services).map(file).collect();
    let (set, out) = rules::parse_files(&sources);
    assert!(!out.has_errors(), "{}", out.render());
    Arc::new(Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render())))
}

/// One rule file.
pub fn router_of(text: &str) -> Arc<Router> {
    let (set, out) = rules::parse_files(&[Source::new("rules/svc-0.yaml", text)]);
    assert!(!out.has_errors(), "{}", out.render());
    Arc::new(Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render())))
}

/// A snapshot of `services` × `each` instances, and the live states.
pub fn snapshot(all: &[Vec<Arc<Instance>>]) -> (Snapshot, LiveSet) {
    let mut lives = LiveSet::default();
    let build = |(at, of_service): (usize, &Vec<Arc<Instance>>)| {
        ServiceSnapshot::build(format!("svc-{at}").into(), 1, of_service.clone(), &mut lives, Millis(0))
    };
    let services: Vec<_> = all.iter().enumerate().map(build).collect();
    (Snapshot::new(services), lives)
}

/// What the catalog says of `services` × `each` instances.
pub fn catalog(services: usize, each: usize) -> Vec<Vec<Arc<Instance>>> {
    (0..services).map(|at| instances(&format!("svc-{at}"), each)).collect()
}

/// The proxy's own place.
pub fn place() -> Place {
    Place::new([("region", "eu"), ("zone", "a")].into_iter().collect())
}

/// A table over a snapshot.
pub fn table(snapshot: Snapshot, router: Arc<Router>) -> Table {
    Table::build(1, snapshot, router, place(), Millis(0)).unwrap_or_else(|error| panic!("{error}"))
}

/// One service under one pool of this algorithm; weights are 1, or 1 to 7.
pub fn one_pool(balance: &str, size: usize, weighted: bool) -> Table {
    let text = format!(
        "service: svc-0\npools: {{all: {{select: version exists, balance: {balance}}}}}\nrules: [{{name: r, to: all}}]\n"
    );
    let router = router_of(&text);
    let weigh = |(at, instance): (usize, Arc<Instance>)| {
        let weight = if weighted { 1 + at as u32 % 7 } else { 1 };
        Arc::new(Instance { weights: Weights { passing: weight, warning: 1 }, ..(*instance).clone() })
    };
    let all = instances("svc-0", size).into_iter().enumerate().map(weigh).collect();
    table(snapshot(&[all]).0, router)
}
