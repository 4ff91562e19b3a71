//! Which rules are in force beside those on disk, and what an operator may order about them.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::guard::Finding;
use crate::dry_run::numbers::{counted, percent, thousands};
use crate::engine::policy::WHOLE;
use crate::observe::shadow::Sums;

/// What is in force.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// The rules are promoted shadow rules, not those of the files.
    pub promoted: bool,
    /// The files as they are now cannot be used; what was in force stays.
    pub broken: bool,
    /// The guard refused the files as they are now; what was in force stays.
    pub refused: Option<Arc<Finding>>,
    /// What the guard said of the last change that it let pass.
    pub passed: Option<Arc<Finding>>,
}

impl InForce {
    /// Whether the files say something else than what is in force.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.promoted || self.broken || self.refused.is_some()
    }

    /// In words, for `/v1/rules`.
    #[must_use]
    pub fn words(&self) -> String {
        let held = match (&self.refused, self.broken) {
            (Some(_), _) => Some("the guard refused the files"),
            (None, true) => Some("the files have errors"),
            (None, false) => None,
        };
        match (self.promoted, held) {
            (false, None) => "as on disk".to_owned(),
            (true, None) => "promoted, differs from disk".to_owned(),
            (false, Some(why)) => format!("{why}: differs from disk"),
            (true, Some(why)) => format!("promoted, differs from disk; {why}"),
        }
    }
}

/// What an operator orders. Obeyed by whoever follows the rule files.
#[derive(Debug)]
pub enum Order {
    /// Read the files again and apply them; `force`: whatever the guard finds.
    Apply {
        /// Pass the guard by.
        force: bool,
        /// Gets the outcome.
        done: oneshot::Sender<Result<Applied, Refused>>,
    },
    /// Put the shadow rules in force until the rule files next change.
    Promote {
        /// What they may move.
        limits: PromoteLimits,
        /// Gets the outcome.
        done: oneshot::Sender<Result<Sums, Refused>>,
    },
}

/// Requests that must have been compared before shadow rules are promoted, unless the caller says another number.
pub const MIN_REQUESTS: u64 = 1_000;

/// What shadow rules may move to be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromoteLimits {
    /// Part of the requests that may go elsewhere, per million.
    pub max_moved: u32,
    /// Requests that may be unrouted and were not. Default 0.
    pub max_unrouted: u64,
    /// Requests that must have been compared. Default [`MIN_REQUESTS`].
    pub min_requests: u64,
}

impl PromoteLimits {
    /// Why shadow rules with these figures are not promoted; empty: they are.
    #[must_use]
    pub fn exceeded(&self, sums: &Sums) -> Vec<String> {
        let mut found = Vec::new();
        if sums.requests < self.min_requests {
            let (seen, wanted) = (counted(sums.requests, "request"), thousands(self.min_requests));
            found.push(format!("only {seen} compared so far, {wanted} are wanted"));
        }
        let limit = f64::from(self.max_moved) / f64::from(WHOLE);
        if sums.moved > limit + 1e-12 {
            found.push(format!("{} of the requests would move, more than {}", percent(sums.moved), percent(limit)));
        }
        if sums.newly_unrouted > self.max_unrouted {
            let (newly, limit) = (counted(sums.newly_unrouted, "request"), thousands(self.max_unrouted));
            found.push(format!("{newly} would be unrouted that are not, more than {limit}"));
        }
        found
    }
}

/// An order that was obeyed.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// In words.
    pub result: String,
    /// What the guard found; absent where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Arc<Finding>>,
}

/// An order that was not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// The rules cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The guard refuses them.
    #[error("{}", .0.words())]
    Guarded(Arc<Finding>),
    /// There are no shadow rules beside the table.
    #[error("there are no shadow rules to promote")]
    NoShadow,
    /// They would move too much, or too little is known of them.
    #[error("{}", .0.join("; "))]
    OverLimit(Vec<String>, Box<Sums>),
    /// The proxy is stopping.
    #[error("the proxy is stopping")]
    Stopping,
}

/// The admin side's hand on the rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    orders: mpsc::Sender<Order>,
    in_force: Arc<Mutex<InForce>>,
}

/// The other end: who obeys, and tells what is in force.
#[derive(Debug)]
pub struct Orders {
    /// What was ordered.
    pub orders: mpsc::Receiver<Order>,
    in_force: Arc<Mutex<InForce>>,
}

/// A desk and its other end.
#[must_use]
pub fn desk() -> (Desk, Orders) {
    let (sender, orders) = mpsc::channel(4);
    let in_force = Arc::new(Mutex::new(InForce::default()));
    (Desk { orders: sender, in_force: Arc::clone(&in_force) }, Orders { orders, in_force })
}

impl Desk {
    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the rule files read again and applied.
    ///
    /// # Errors
    /// They cannot be used, the guard refuses them (never with `force`), or the proxy is stopping.
    pub async fn apply(&self, force: bool) -> Result<Applied, Refused> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order::Apply { force, done }).await.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }
}

impl Desk {
    /// Has the shadow rules put in force.
    ///
    /// # Errors
    /// There are none, they are over a limit, or the proxy is stopping.
    pub async fn promote(&self, limits: PromoteLimits) -> Result<Sums, Refused> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order::Promote { limits, done }).await.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }
}

impl Orders {
    /// Changes what the desk shows.
    pub fn tell(&self, change: impl FnOnce(&mut InForce)) {
        change(&mut self.in_force.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the desk shows.
    #[must_use]
    pub fn told(&self) -> InForce {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
