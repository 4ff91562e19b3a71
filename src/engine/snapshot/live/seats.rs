//! Open connections to an endpoint over all workers, where there is a limit on them.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Live;

impl Live {
    /// One more connection is open, if fewer than `most` are. Each true is followed by one [`Live::leave_seat`].
    #[must_use]
    pub fn take_seat(&self, most: u32) -> bool {
        let one_more = |seats: u32| (seats < most).then_some(seats + 1);
        self.seats.fetch_update(SeqCst, Relaxed, one_more).is_ok()
    }

    /// A connection was closed. Returns whether somebody waits for it.
    #[must_use]
    pub fn leave_seat(&self) -> bool {
        self.seats.fetch_sub(1, SeqCst);
        self.seat_is_wanted()
    }

    /// Open connections, where they are bounded.
    #[must_use]
    pub fn seats(&self) -> u32 {
        self.seats.load(Relaxed)
    }

    /// A request waits for a connection, until [`Live::do_without_seat`].
    pub fn want_seat(&self) {
        self.seats_wanted.fetch_add(1, SeqCst);
    }

    /// A request waits no longer.
    pub fn do_without_seat(&self) {
        self.seats_wanted.fetch_sub(1, SeqCst);
    }

    /// Whether a request waits for a connection: idle ones should be closed. Ordered with closing one, so that who waits
    /// and who closes cannot miss each other.
    #[must_use]
    pub fn seat_is_wanted(&self) -> bool {
        self.seats_wanted.load(SeqCst) > 0
    }
}
