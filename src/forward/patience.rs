//! How long a client is waited for while it sends a body, and who is waited for.

use std::cell::Cell;

use super::connection::NEVER;
use super::error::Detail;
use super::wait::after;
use crate::engine::time::Millis;

/// How long a client is waited for while it sends its body. The defaults: 30 s, 300 s, 16 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two pieces, ms; 0: without end.
    pub idle: u64,
    /// In all, ms: the times in which an instance would have taken more and there was nothing. 0: without end.
    pub whole: u64,
    /// Bytes that are worth a second more than `whole`; 0: none are.
    pub rate: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: 30_000, whole: 300_000, rate: 16 * 1024 }
    }
}

impl Patience {
    /// Until when a client is waited for that has sent so many bytes and been waited for so long, from now on.
    fn ends(self, now: Millis, waited: u64, bytes: u64) -> Millis {
        let idle = after(now, self.idle);
        if self.whole == 0 {
            return idle;
        }
        let earned = bytes.saturating_mul(1_000).checked_div(self.rate).unwrap_or(0);
        idle.min(now.plus(self.whole.saturating_add(earned).saturating_sub(waited)))
    }
}

/// How far a request's body has come, and who is waited for.
#[derive(Debug)]
pub struct Progress {
    patience: Cell<Patience>,
    bytes: Cell<u64>,
    /// How long the client was waited for before the last piece, ms.
    waited: Cell<u64>,
    /// What `waited` was when the try at hand began.
    waited_before: Cell<u64>,
    /// When the last piece came, or when the waiting began.
    moved: Cell<Millis>,
    /// An instance asked for more and nothing was there.
    waiting: Cell<bool>,
    ended: Cell<bool>,
    fault: Cell<Option<Detail>>,
}

impl Progress {
    /// A body of which nothing has come.
    #[must_use]
    pub fn new(now: Millis, patience: Patience) -> Self {
        Self {
            patience: Cell::new(patience),
            bytes: Cell::new(0),
            waited: Cell::new(0),
            waited_before: Cell::new(0),
            moved: Cell::new(now),
            waiting: Cell::new(false),
            ended: Cell::new(false),
            fault: Cell::new(None),
        }
    }

    /// It is a stream that lasts: the client may take so long between two pieces, ms, and as long as it likes in all.
    pub fn be_patient(&self, idle: u64) {
        self.patience.set(Patience { idle, whole: 0, rate: 0 });
    }

    /// Bytes that came.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether all of it came.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ended.get()
    }

    /// What the client did wrong with its body, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<Detail> {
        self.fault.get()
    }

    /// The client did something wrong.
    pub fn fail(&self, detail: Detail) {
        self.fault.set(Some(detail));
    }

    /// A try begins, whose instance has its own time to take the body and to answer.
    pub fn begin_try(&self, now: Millis) {
        self.waited_before.set(self.waited.get());
        self.took_kept(now);
    }

    /// The instance took what was kept: it is not the client that moved.
    pub fn took_kept(&self, now: Millis) {
        if !self.waits_for_client() {
            self.moved.set(now);
        }
    }

    /// An instance would take more and nothing is there. Until when the client is waited for.
    pub fn starve(&self, now: Millis) -> Millis {
        if !self.waiting.replace(true) {
            self.moved.set(now);
        }
        self.patience.get().ends(self.moved.get(), self.waited.get(), self.bytes.get())
    }

    /// So many bytes came, or the end.
    pub fn came(&self, now: Millis, bytes: usize) {
        let since = self.moved.replace(now);
        if self.waiting.replace(false) {
            self.waited.set(self.waited.get() + now.since(since));
        }
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// That was all.
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// Until when an instance has to answer or to take more: `first_byte` after the last piece, else `idle`
    /// (between two pieces). While the client is the one waited for, its own limit counts.
    #[must_use]
    pub fn deadline(&self, first_byte: u64, idle: u64) -> Millis {
        match (self.ended.get(), self.waiting.get()) {
            (true, _) => after(self.moved.get(), first_byte),
            (false, true) => NEVER,
            (false, false) => after(self.moved.get(), idle),
        }
    }

    /// The end of a try's time, later by the time in which the client was waited for in it.
    #[must_use]
    pub fn prolonged(&self, end: Millis) -> Millis {
        if self.waits_for_client() {
            return NEVER;
        }
        end.plus(self.waited.get() - self.waited_before.get())
    }

    /// Whether the client is the one waited for: an instance would take more, and nothing is there.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.waiting.get() && !self.ended.get()
    }

    /// When the last piece went on, or the waiting for the next one began.
    #[must_use]
    pub fn moved_at(&self) -> Millis {
        self.moved.get()
    }

    /// The exchange has come to its end while the body was under way. Whether the client was the one waited for, which is
    /// then its fault.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        let by_client = self.waits_for_client();
        if by_client {
            self.fault.set(Some(Detail::ClientTimeout));
        }
        by_client
    }

    /// A piece of the answer went to a client that is still to send more: as in a tunnel, an exchange in which something
    /// moves is not idle.
    pub fn answered(&self, now: Millis) {
        let since = self.moved.replace(now);
        if self.waiting.get() {
            self.waited.set(self.waited.get() + now.since(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_by_the_pause_or_by_the_whole_and_bytes_prolong_the_whole() {
        let now = Millis(1_000);
        let patience = Patience::default();
        assert_eq!(patience.ends(now, 0, 0), Millis(31_000), "the pause comes first");
        assert_eq!(patience.ends(now, 290_000, 0), Millis(11_000), "ten seconds are left");
        assert_eq!(patience.ends(now, 300_000, 0), now);
        assert_eq!(patience.ends(now, 300_000, 80 * 1024), Millis(6_000), "five seconds are earned");
        assert_eq!(patience.ends(now, 400_000, 1 << 40), Millis(31_000));
        let strict = Patience { rate: 0, ..patience };
        assert_eq!(strict.ends(now, 300_000, u64::MAX), now);
        let endless = Patience { idle: 0, whole: 0, rate: 0 };
        assert_eq!(endless.ends(now, u64::MAX, 0), NEVER);
    }
}
