//! Why a member of a pool takes no traffic: asked by `explain` and the admin side, computed on demand.

use serde::Serialize;

use super::Table;
use super::resolve::accepted;
use crate::engine::health::State;
use crate::engine::health::check::{Failure, Verdict};
use crate::engine::instance::Status;
use crate::engine::label::Text;
use crate::engine::route::{FileIdx, PoolSlot, RouterPool};
use crate::engine::snapshot::{Endpoint, EndpointIdx};
use crate::engine::time::Millis;

/// Why an endpoint is not routable in a pool. The first that applies, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum LeftOut {
    /// It belongs to a lane that the pool's selector does not mention.
    Lane {
        /// The label.
        label: Text,
        /// Its value.
        value: Text,
    },
    /// The pool does not accept its status.
    Status {
        /// The status in force.
        status: Status,
    },
    /// Its weight is 0.
    Weight,
    /// An operator drained it.
    Drained,
    /// The active check fails.
    CheckFailing {
        /// Why it failed last.
        #[serde(flatten)]
        last: Option<Failure>,
    },
    /// It waits for its first passing check.
    AwaitsCheck {
        /// Why it failed last; `None`: it was not checked yet.
        #[serde(flatten)]
        last: Option<Failure>,
    },
    /// Ejected; past `until` it waits for a probe.
    Ejected {
        /// Until then.
        until: Millis,
    },
    /// Being probed, or waiting for it.
    Probing,
}

impl Table {
    /// Whom a pool's selector names and who yet takes no traffic in it, by the state as of now, in index order.
    /// Ejected members that the pool's cap keeps in traffic are not among them.
    #[must_use]
    pub fn left_out(&self, file: FileIdx, slot: PoolSlot) -> Vec<(EndpointIdx, LeftOut)> {
        let (pools, pool) = (&self.files[file as usize], self.pool(file, slot));
        let resolving = self.resolving(file);
        let compiled = pools.compiled(slot);
        let spec = &resolving.file.pools[compiled as usize];
        let mut out: Vec<(EndpointIdx, LeftOut)> = Vec::new();
        if let (Some(service), Some(lanes)) = (&pools.service, &resolving.file.lanes)
            && let selector = &resolving.selectors[compiled as usize]
            && let (true, Some(select)) = (selector.isolated, &selector.select)
        {
            let mut isolated = select.select(service);
            isolated.intersect(&resolving.in_lanes(service));
            out.extend(isolated.iter().map(|at| {
                let value = service.endpoints[at as usize].instance.labels.value(&lanes.label).unwrap_or_default();
                (at, LeftOut::Lane { label: lanes.label.clone(), value: value.into() })
            }));
        }
        let kept = |at: &EndpointIdx| pool.refused.binary_search(at).is_ok();
        out.extend(
            pool.members.iter().filter_map(|at| Some((*at, reason(spec, &pools.endpoints()[*at as usize], kept(at))?))),
        );
        out.sort_by_key(|(at, _)| *at);
        out
    }
}

fn reason(spec: &RouterPool, endpoint: &Endpoint, kept: bool) -> Option<LeftOut> {
    let live = &endpoint.live;
    if !accepted(spec, endpoint) {
        let status = endpoint.status();
        let by_weight = endpoint.weight() == 0 && !matches!(status, Status::Critical | Status::Maintenance);
        return Some(if by_weight { LeftOut::Weight } else { LeftOut::Status { status } });
    }
    if live.drained() {
        return Some(LeftOut::Drained);
    }
    if live.verdict() == Verdict::Failing {
        return Some(LeftOut::CheckFailing { last: live.check_failure() });
    }
    if live.awaits_check() {
        return Some(LeftOut::AwaitsCheck { last: live.check_failure() });
    }
    match live.state() {
        State::Ejected { until } if !kept => Some(LeftOut::Ejected { until }),
        State::Probing { .. } if !kept => Some(LeftOut::Probing),
        _ => None,
    }
}
