//! What was read of answers for a client of HTTP/1 that the system has not taken yet. So much is read ahead of it and no
//! more: what a client that does not read can hold is one large piece, and what comes meanwhile goes out in one write.

use std::cell::Cell;
use std::task::Context;

use crate::upstream::pace::{LARGE, SMALL};

/// The bytes of an answer that wait for the client's socket.
#[derive(Debug, Default)]
pub struct Unsent {
    bytes: Cell<usize>,
    /// An answer waits for them to go.
    waited_for: Cell<bool>,
}

impl Unsent {
    /// How much may be read at once now, at least [`SMALL`]; `None`: nothing, and the task is woken when that changes. `blocked`: a write is
    /// stuck (of an encrypted socket also one that was taken, and is kept there).
    #[must_use]
    pub fn room(&self, blocked: bool) -> Option<usize> {
        match self.bytes.get() {
            bytes if !blocked && bytes <= LARGE - SMALL => Some(LARGE - bytes),
            _ => {
                self.waited_for.set(true);
                None
            }
        }
    }

    /// So many bytes were given to the protocol.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// The protocol has nothing left to write: it flushes only then.
    pub fn drained(&self, cx: &Context<'_>) {
        self.bytes.set(0);
        if self.waited_for.take() {
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_what_waits_are_one_large_piece_together() {
        let unsent = Unsent::default();
        assert_eq!((unsent.room(false), unsent.room(true)), (Some(LARGE), None));
        unsent.add(100);
        assert_eq!(unsent.room(false), Some(LARGE - 100));
        unsent.add(LARGE - SMALL - 100);
        assert_eq!(unsent.room(false), Some(SMALL));
        unsent.add(1);
        assert_eq!(unsent.room(false), None, "a piece would be too small to be worth a read");
        let cx = Context::from_waker(std::task::Waker::noop());
        unsent.drained(&cx);
        assert_eq!(unsent.room(false), Some(LARGE));
    }
}
