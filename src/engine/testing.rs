//! Instances and services for the engine's own unit tests.

use std::sync::Arc;

use super::diagnostic::Source;
use super::instance::{Instance, Status, Weights};
use super::locality::Place;
use super::route::Router;
use super::rules;
use super::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use super::table::{Table, TableError};
use super::time::Millis;

pub(crate) fn instance(service: &str, id: &str, port: u16, labels: &[(&str, &str)]) -> Instance {
    Instance {
        identity: id.into(),
        id: id.into(),
        service: service.into(),
        addr: ([127, 0, 0, 1], port).into(),
        host: "127.0.0.1".into(),
        node: "".into(),
        dc: "".into(),
        labels: labels.iter().copied().collect(),
        tags: [].into(),
        weights: Weights::default(),
        status: Status::Passing,
    }
}

pub(crate) fn instance_with_status(service: &str, id: &str, status: Status) -> Instance {
    Instance { status, ..instance(service, id, 80, &[]) }
}

pub(crate) fn service(name: &str, instances: Vec<Arc<Instance>>) -> Arc<ServiceSnapshot> {
    ServiceSnapshot::build(name.into(), 1, instances, &mut LiveSet::default(), Millis(0))
}

/// A router of one rule file.
pub(crate) fn router(rules: &str) -> Arc<Router> {
    let (set, out) = rules::parse_files(&[Source::new("rules/web.yaml", rules)]);
    assert!(!out.has_errors(), "{}", out.render());
    Arc::new(Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render())))
}

/// A table of these services under one rule file, for a proxy in region eu, zone a.
pub(crate) fn table(rules: &str, services: Vec<Arc<ServiceSnapshot>>) -> Result<Table, TableError> {
    let place = Place::new([("region", "eu"), ("zone", "a")].into_iter().collect());
    Table::build(1, Snapshot::new(services), router(rules), place, Millis(0))
}
