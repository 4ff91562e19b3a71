//! A worker's clock: the time, read once where something happened, looked at many times.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::turn::Rounds;
use crate::engine::time::Millis;

/// Microseconds since the process's origin, as of the last reading.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    micros: Cell<u64>,
    /// Who waits for a turn.
    pub rounds: Rounds,
}

impl Clock {
    /// A clock that counts from `origin`, which all parts of the process share.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        let clock = Self { origin, micros: Cell::new(0), rounds: Rounds::default() };
        clock.read();
        clock
    }

    /// Reads the system's clock. Microseconds.
    pub fn read(&self) -> u64 {
        let micros = self.origin.elapsed().as_micros() as u64;
        self.micros.set(micros);
        micros
    }

    /// Reads the system's clock.
    pub fn read_millis(&self) -> Millis {
        Millis(self.read() / 1_000)
    }

    /// The last reading in microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.micros.get()
    }

    /// The last reading.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(self.micros.get() / 1_000)
    }

    /// The moment as the runtime's timers want it.
    #[must_use]
    pub fn instant(&self, at: Millis) -> Instant {
        self.origin + Duration::from_millis(at.0)
    }
}
