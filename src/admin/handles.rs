//! What other parts give to the admin side. The composition root implements these.

use std::fmt;

use serde::Serialize;

/// Readiness as `/ready` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Whether traffic may come.
    pub ready: bool,
    /// Ready, with something missing or stale.
    pub degraded: bool,
    /// What is missing, stale, or in the way.
    pub reasons: Vec<String>,
    /// What was switched off on purpose and should not be forgotten. Says nothing about traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Gives readiness; asked at every probe, so it must be cheap and must not block.
pub trait ReadyView: Send + Sync + fmt::Debug {
    /// As of now.
    fn ready(&self) -> Ready;
}

/// What an operator may do with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Out of routing for so many milliseconds (`None`: the service's longest ejection); counts against the cap.
    Eject(Option<u64>),
    /// Back in, if it was ejected.
    Readmit,
    /// No new traffic until undrained; not subject to any cap.
    Drain,
    /// Ends a drain.
    Undrain,
}

/// Why an action was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The catalog has no such service.
    #[error("the catalog has no such service")]
    NoService,
    /// The service has no such instance.
    #[error("the service has no such instance")]
    NoInstance,
    /// Nothing is held for the service.
    #[error("nothing is held for this service")]
    NothingHeld,
    /// The part that would do it is stopping.
    #[error("the proxy is stopping")]
    Stopping,
}

/// Moves live state; tells the publisher and records the event itself.
pub trait Actions: Send + Sync + fmt::Debug {
    /// Does it; whether anything changed.
    ///
    /// # Errors
    /// There is no such service or instance, or the proxy is stopping.
    fn act(&self, service: &str, id: &str, action: Action) -> Result<bool, ActionError>;
}

/// Shows the certificates in force.
pub trait CertificatesView: Send + Sync + fmt::Debug {
    /// By listener: names, file, seconds until they expire.
    fn show(&self) -> serde_json::Value;
}

/// Shows the catalog's state, and releases what its guard holds.
pub trait CatalogView: Send + Sync + fmt::Debug {
    /// Sources and services: age, index, trust, held and why (CATALOGS.md 2.7).
    fn status(&self) -> serde_json::Value;

    /// Accepts the removals that are held for a service; how many instances go.
    ///
    /// # Errors
    /// Nothing is held, no such service, or the proxy is stopping.
    fn accept(&self, service: &str) -> Result<usize, ActionError>;
}
