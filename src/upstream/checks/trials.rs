//! Ejected endpoints that no request can prove: asked whether they accept connections.
//!
//! An ejection ends with a trial request, which must be one that can be repeated. A service that sees only requests
//! that cannot (POST) and that nobody checks actively would never take an instance back. So an endpoint that has waited
//! for a trial for as long as a first ejection takes is asked by the proxy itself; if its address accepts a connection,
//! the next request of any kind is the trial: at most one such request fails in each ejection.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::probe::{self, CheckFailure};
use crate::engine::label::Text;
use crate::engine::policy::{Check, Eject};
use crate::engine::snapshot::Endpoint;
use crate::engine::table::Table;
use crate::engine::time::Millis;
use crate::upstream::Dial;

/// Connections that are tried at the same time.
const AT_ONCE: usize = 32;

/// The connections under way.
#[derive(Debug, Default)]
pub(super) struct Trials {
    running: JoinSet<Trial>,
    /// Whose, by the live state's id.
    asked: HashSet<u64>,
}

/// A connection that was tried.
#[derive(Debug)]
pub(super) struct Trial {
    /// Whose.
    pub endpoint: Endpoint,
    /// The service's policy.
    pub eject: Arc<Eject>,
    /// What came of it.
    pub answer: Result<(), CheckFailure>,
}

impl Trials {
    /// Asks those that have waited for long. A service with an active check, its own or for want of the catalog's word
    /// (`stale`), is left to that.
    pub(super) fn look(&mut self, table: &Table, stale: &BTreeSet<Text>, now: Millis) {
        for (file, pools) in table.router.files.iter().zip(&table.files) {
            if file.check.is_some() || stale.contains(&file.service) {
                continue;
            }
            for at in pools.pools.iter().flat_map(|pool| &pool.ejected) {
                let Some(endpoint) = pools.endpoints().get(*at as usize) else { continue };
                let waited = endpoint.live.waits_for_trial(now);
                if waited < file.eject.base_ejection_time || endpoint.live.trial_is_open() {
                    continue;
                }
                if self.running.len() >= AT_ONCE || !self.asked.insert(endpoint.live.id) {
                    continue;
                }
                let (endpoint, eject) = (endpoint.clone(), Arc::new(file.eject.clone()));
                self.running.spawn(async move {
                    let answer = probe::run(
                        &Check::new(Check::CONNECTS),
                        &endpoint.instance,
                        &Dial::plain(endpoint.instance.addr),
                    )
                    .await;
                    Trial { endpoint, eject, answer }
                });
            }
        }
    }

    /// The next one to end; `None` while there is none.
    pub(super) async fn next(&mut self) -> Option<Trial> {
        match self.running.join_next().await? {
            Ok(trial) => {
                self.asked.remove(&trial.endpoint.live.id);
                Some(trial)
            }
            // Only a panic in the probe; whose is not known, so that all may be asked again.
            Err(error) => {
                self.asked.clear();
                tracing::error!(target: "pointsman::checks", %error, "a trial connection failed in itself");
                None
            }
        }
    }
}
