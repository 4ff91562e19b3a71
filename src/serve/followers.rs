//! What follows new rules: the catalog's subscriptions before they are in force, the access log's fields after.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::upstream_tls;
use crate::catalog::{CatalogStatus, Wanted};
use crate::engine::diagnostic::Diagnostics;
use crate::engine::label::Text;
use crate::engine::route::Router;
use crate::observe::access_log::ReadFields;
use crate::observe::reloads::Reloads;
use crate::publish::Published;
use crate::publish::rules::{Followers, Loaded};
use crate::upstream::Trusts;

/// How long new rules wait for the first answer about a service that the rules before did not name.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// How often to look whether a service has been answered that the catalog turns out not to have.
const LOOK: Duration = Duration::from_millis(50);

/// The parts that must know of new rules.
#[derive(Clone)]
pub struct RuleFollowers {
    /// The services that are subscribed to.
    pub wanted: watch::Sender<Wanted>,
    /// The fields that the access log copies.
    pub fields: Arc<ArcSwap<ReadFields>>,
    /// Where the answers arrive.
    pub published: Published,
    /// Who has been answered.
    pub status: Arc<CatalogStatus>,
    /// The services of the rules in force and of the shadow rules.
    pub services: Arc<Mutex<[Wanted; 2]>>,
    /// Whether it is the shadow rules that these follow.
    pub shadow: bool,
    /// Files that the rules name are read before they are in force.
    pub trusts: Arc<Trusts>,
    /// For files that cannot be used.
    pub reloads: Arc<Reloads>,
}

/// The services that the rules name.
#[must_use]
pub fn wanted(router: &Router) -> Wanted {
    let named = router.written().iter().filter(|file| !file.ruleset.is_for_any_service());
    Wanted { services: named.map(|file| file.service.clone()).collect(), all: router.has_stars() }
}

impl Followers for RuleFollowers {
    async fn prepare(&self, router: &Router) {
        for wrong in upstream_tls::prepare(&self.trusts, router).await {
            let words = format!("{wrong}; until the file is mended, requests to it get 502");
            self.reloads.refused("upstream_tls", words, Diagnostics::default());
        }
        let next = wanted(router).services;
        let new: BTreeSet<Text> = next.difference(&self.wanted.borrow().services).cloned().collect();
        if router.has_stars() {
            self.wanted.send_if_modified(|wanted| !std::mem::replace(&mut wanted.all, true));
        }
        if new.is_empty() {
            return;
        }
        self.wanted.send_modify(|wanted| wanted.services.extend(new.iter().cloned()));
        let known = async {
            while !new.iter().all(|service| self.is_known(service)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(FIRST_ANSWER, known).await.is_err() {
            tracing::warn!(services = ?new, "the catalog has not answered about all services that the new rules name");
        }
    }

    fn applied(&self, loaded: &Loaded) {
        if !self.shadow {
            upstream_tls::warn_of_unverified(&loaded.router);
            upstream_tls::forget(&self.trusts, &loaded.router);
            self.fields.store(Arc::new(ReadFields::of(&loaded.set)));
        }
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services[usize::from(self.shadow)] = wanted(&loaded.router);
        let named = services.iter().flat_map(|wanted| &wanted.services).cloned().collect();
        let all = services.iter().any(|wanted| wanted.all);
        self.wanted.send_replace(Wanted { services: named, all });
    }
}

impl RuleFollowers {
    /// In the table, or answered as not in the catalog.
    fn is_known(&self, service: &Text) -> bool {
        self.published.table.load().snapshot.service(service).is_some()
            || self.status.services().iter().any(|(name, _, figures)| {
                name == service && figures.answered_at.is_some() && figures.instances.iter().sum::<usize>() == 0
            })
    }
}
