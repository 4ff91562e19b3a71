//! A connection's one timer. It is armed for the earliest moment that anything waits for, and moved only when that is
//! earlier than what it is armed for, or when it has fired.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::time::Millis;
use crate::forward::clock::Clock;
use crate::forward::connection::NEVER;

/// The farthest that the timer is armed for when nothing is known to be due: deadlines that are set between two looks
/// are then seen without moving it.
const FARTHEST_MS: u64 = 60_000;

/// The timer.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Millis,
    registered: bool,
}

impl Timer {
    /// A timer that is not armed yet.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        let now = clock.now();
        Self { sleep: Box::pin(sleep_until(Instant::from_std(clock.instant(now)))), armed: NEVER, registered: false }
    }

    /// Ready when the timer has fired; the clock was read then. Otherwise the task is woken at `due` at the latest.
    pub fn poll(&mut self, clock: &Clock, due: Millis, cx: &mut Context<'_>) -> Poll<()> {
        if self.registered && self.sleep.is_elapsed() {
            self.registered = false;
            clock.read();
            return Poll::Ready(());
        }
        if !self.registered || due < self.armed {
            self.armed = due.min(clock.now().plus(FARTHEST_MS));
            self.sleep.as_mut().reset(Instant::from_std(clock.instant(self.armed)));
            self.registered = true;
            if self.sleep.as_mut().poll(cx).is_ready() {
                self.registered = false;
                clock.read();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
