//! The process's monotone clock. The engine takes its time as an argument; this is where it comes from.

use std::time::{Duration, Instant};

use crate::engine::time::Millis;

/// Milliseconds since the process started; one value for the whole process, copied to whoever needs it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// How far before its start the origin lies, so that "five minutes ago" is never before zero.
    const HEADROOM: Duration = Duration::from_secs(600);

    /// A clock whose origin lies ten minutes before now.
    #[must_use]
    pub fn start() -> Self {
        let now = Instant::now();
        Self { origin: now.checked_sub(Self::HEADROOM).unwrap_or(now) }
    }

    /// The moment that is 0.
    #[must_use]
    pub fn origin(self) -> Instant {
        self.origin
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Millis {
        self.at(Instant::now())
    }

    /// The given moment.
    #[must_use]
    pub fn at(self, moment: Instant) -> Millis {
        Millis(moment.saturating_duration_since(self.origin).as_millis() as u64)
    }
}
