//! The last reload of each thing that is read again: what `/v1/rules` shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::engine::diagnostic::{Diagnostics, Severity};

use super::events::{Events, Kind, Report};
use super::metrics::Metrics;
use super::names;

/// How one reload went.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// `ok`: what was read is in force now; `failed`: it cannot be used; `guarded`: the guard refused it.
    pub result: &'static str,
    /// In words: how many files, or why not.
    pub reason: String,
    /// Everything that was found, warnings of an accepted reload included.
    pub diagnostics: Diagnostics,
}

/// The last reload by what was read (`rules`, `certificates`, …). Writers: whoever reloads; reader: the admin side.
#[derive(Debug)]
pub struct Reloads {
    last: Mutex<BTreeMap<&'static str, Arc<Reload>>>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

impl Reloads {
    /// Nothing reloaded yet.
    #[must_use]
    pub fn new(events: Arc<Events>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { last: Mutex::default(), events, metrics })
    }

    /// What was read is in force: kept, counted, told.
    pub fn accepted(&self, what: &'static str, reason: impl Into<String>, diagnostics: Diagnostics) {
        self.keep(what, (Kind::Reloaded, "ok"), reason.into(), diagnostics);
    }

    /// What was read is not used; what was in force stays: kept, counted, told with the first error.
    pub fn refused(&self, what: &'static str, reason: impl Into<String>, diagnostics: Diagnostics) {
        self.keep(what, (Kind::ReloadFailed, "failed"), reason.into(), diagnostics);
    }

    /// What was read could be used, but would move more than the guard allows; what was in force stays.
    pub fn guarded(&self, what: &'static str, reason: impl Into<String>) {
        self.keep(what, (Kind::ReloadFailed, "guarded"), reason.into(), Diagnostics::default());
    }

    /// The last one of a kind.
    #[must_use]
    pub fn last(&self, what: &str) -> Option<Arc<Reload>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(what).cloned()
    }

    fn keep(&self, what: &'static str, (kind, result): (Kind, &'static str), reason: String, diagnostics: Diagnostics) {
        let first = diagnostics.0.iter().find(|d| d.severity == Severity::Error).map(|d| format!(": {}", d.one_line()));
        self.metrics.count(&names::RELOADS, &[what, result], 1);
        self.events.record(Report::new(kind, format!("{what}: {reason}{}", first.unwrap_or_default())));
        let reload = Arc::new(Reload { at: SystemTime::now(), result, reason, diagnostics });
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(what, reload);
    }
}
