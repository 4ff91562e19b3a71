//! What a service carries at once.

use std::sync::Arc;

use super::gradient::Adaptive;
use super::limiter::Over;
use super::places::{Place, Places};
use crate::engine::policy::{Concurrency, Overload};

/// What a service carries at once.
#[derive(Debug)]
pub struct Load {
    /// As written.
    pub policy: Overload,
    /// Found by latency, where `policy.service` is adaptive.
    pub adaptive: Adaptive,
    places: Arc<Places>,
}

impl Load {
    /// One that carries nothing yet.
    #[must_use]
    pub fn new(policy: Overload) -> Self {
        Self { policy, adaptive: Adaptive::default(), places: Arc::default() }
    }

    /// A place in the service; `None` inside: there is no limit.
    ///
    /// # Errors
    /// It carries all that it may.
    pub fn enter(&self) -> Result<Option<Place>, Over> {
        match self.limit() {
            None => Ok(None),
            Some(most) => self.places.take(most).map(Some).ok_or(Over::Concurrency),
        }
    }

    /// Requests at once in the service; `None`: no limit.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        match self.policy.service {
            Concurrency::Unlimited => None,
            Concurrency::Fixed(most) => Some(most),
            Concurrency::Adaptive => Some(self.adaptive.limit()),
        }
    }

    /// Requests that go on, where there is a limit.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.places.held()
    }
}
