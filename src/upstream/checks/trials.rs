//! Ejected endpoints that no request can prove: asked whether they accept connections.
//!
//! An ejection ends with a trial request, which must be one that can be repeated. A service that sees only requests
//! that cannot (POST) and that nobody checks actively would never take an instance back. So an endpoint that has waited
//! for a trial for as long as a first ejection takes is asked by the proxy itself; if its address accepts a connection,
//! the next request of any kind is the trial: at most one such request fails in each ejection.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::task::JoinError;

use super::probe::{self, CheckFailure};
use super::running::Running;
use crate::engine::label::Text;
use crate::engine::policy::{Check, Eject, Protocol};
use crate::engine::snapshot::Endpoint;
use crate::engine::table::Table;
use crate::engine::time::Millis;
use crate::upstream::Dial;

/// Connections that are tried at the same time.
const AT_ONCE: usize = 32;
/// What is asked.
const CONNECTS: Check = Check::new(Check::CONNECTS);

/// The connections under way.
#[derive(Debug)]
pub(super) struct Trials {
    running: Running<Endpoint, Trial>,
    /// Whose, by the live state's id.
    asked: HashSet<u64>,
}

/// A connection that was tried.
#[derive(Debug)]
pub(super) struct Trial {
    /// The service's policy.
    pub eject: Arc<Eject>,
    /// What came of it.
    pub answer: Result<(), CheckFailure>,
}

impl Default for Trials {
    fn default() -> Self {
        Self { running: Running::at_most(AT_ONCE), asked: HashSet::new() }
    }
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
                if !self.running.has_room() || !self.asked.insert(endpoint.live.id) {
                    continue;
                }
                let (instance, eject) = (Arc::clone(&endpoint.instance), Arc::new(file.eject.clone()));
                self.running.begin(endpoint.clone(), async move {
                    let answer = probe::run(&CONNECTS, &instance, &Dial::plain(instance.addr), Protocol::Http1).await;
                    Trial { eject, answer }
                });
            }
        }
    }

    /// The next one to end, and whose it was; `None` while there is none.
    pub(super) async fn next(&mut self) -> Option<(Endpoint, Result<Trial, JoinError>)> {
        let (endpoint, ended) = self.running.next().await?;
        self.asked.remove(&endpoint.live.id);
        Some((endpoint, ended))
    }
}
