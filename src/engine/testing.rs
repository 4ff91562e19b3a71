//! Instances and services for the engine's own unit tests.

use std::sync::Arc;

use super::instance::{Instance, Status, Weights};
use super::snapshot::{LiveSet, ServiceSnapshot};
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
