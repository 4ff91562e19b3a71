//! Turns: how much a connection moves before others of its worker go on. Where client and instance are both fast there is
//! more to read each time that something was written, and everybody else's requests would wait for it; and where
//! thousands are, for all of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;
use tokio::task::yield_now;

use super::clock::Clock;

/// Bytes that a connection moves, after a rest, before it waits for a turn; one piece more at most. A tenth of a millisecond's
/// work, and more than an answer of 64 KiB.
const FREE: usize = 96 * 1024;
/// Bytes that are moved in a turn; one piece more at most. Two tenths of a millisecond or so. With less of them, large answers
/// cost more, for what one connection moves at once is still in the processor's caches; with more, small requests wait
/// (docs/PERFORMANCE.md, *Beside fast clients*).
const TURN: usize = 256 * 1024;

/// Who waits for a turn. They have them in order, one in each round of the worker's runtime. A round ends when the runtime
/// has looked at its events, and everything that was ready before has run.
#[derive(Debug, Default)]
pub struct Rounds {
    waiting: RefCell<VecDeque<Rc<Ticket>>>,
    wanted: Notify,
}

/// A place in the line.
#[derive(Debug)]
struct Ticket {
    called: Cell<bool>,
    waker: Waker,
}

impl Rounds {
    /// Calls those that wait. Ends with its worker.
    pub async fn call(&self) {
        loop {
            self.wanted.notified().await;
            while !self.waiting.borrow().is_empty() {
                yield_now().await;
                self.call_next();
            }
        }
    }

    fn call_next(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(ticket) = waiting.pop_front() {
            ticket.called.set(true);
            // Who has left does not take up a turn.
            if Rc::strong_count(&ticket) > 1 {
                return ticket.waker.wake_by_ref();
            }
        }
    }
}

/// One connection's turns. [`Rounds::call`] has to run beside it.
#[derive(Debug)]
pub struct Turn {
    clock: Rc<Clock>,
    left: Cell<usize>,
    ticket: RefCell<Option<Rc<Ticket>>>,
}

impl Turn {
    /// What is moved first; nobody waits for that.
    #[must_use]
    pub fn new(clock: &Rc<Clock>) -> Self {
        Self { clock: Rc::clone(clock), left: Cell::new(FREE), ticket: RefCell::default() }
    }

    /// So many bytes were taken in to be passed on.
    pub fn moved(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    /// There is nothing to move in either direction: the runtime has to look at its events before there is.
    pub fn rests(&self) {
        self.left.set(FREE);
    }

    /// Whether more may be moved now. If not, the task is woken for its next turn. Where it is woken before, by what it
    /// has just moved itself, it waits on.
    #[must_use]
    pub fn lasts(&self, cx: &Context<'_>) -> bool {
        if self.left.get() > 0 {
            return true;
        }
        let mut ticket = self.ticket.borrow_mut();
        let called = ticket.as_ref().is_some_and(|ticket| ticket.called.get());
        if called {
            *ticket = None;
            self.left.set(TURN);
        } else if ticket.is_none() {
            let new = Rc::new(Ticket { called: Cell::new(false), waker: cx.waker().clone() });
            *ticket = Some(Rc::clone(&new));
            let rounds = &self.clock.rounds;
            rounds.waiting.borrow_mut().push_back(new);
            rounds.wanted.notify_one();
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Instant;

    use tokio::task::{JoinHandle, spawn_local};

    use super::*;

    /// A clock whose rounds go on.
    fn started() -> (Rc<Clock>, JoinHandle<()>) {
        let clock = Rc::new(Clock::new(Instant::now()));
        let calling = Rc::clone(&clock);
        (clock, spawn_local(async move { calling.rounds.call().await }))
    }

    /// Moves so many halves of a turn, and tells of each when it was moved.
    async fn move_halves(clock: &Rc<Clock>, halves: usize, now: impl Fn() -> u64) -> Vec<u64> {
        let (turn, mut at) = (Turn::new(clock), Vec::new());
        poll_fn(|cx| {
            // Who moves something wakes itself over and over.
            cx.waker().wake_by_ref();
            while at.len() < halves {
                if !turn.lasts(cx) {
                    return Poll::Pending;
                }
                turn.moved(TURN / 2);
                at.push(now());
            }
            Poll::Ready(())
        })
        .await;
        at
    }

    #[tokio::test(flavor = "local")]
    async fn a_turn_ends_and_the_next_one_comes_when_others_had_theirs() {
        let (clock, calling) = started();
        let others = Rc::new(Cell::new(0));
        let counted = Rc::clone(&others);
        let other = spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let at = move_halves(&clock, 9, || others.get()).await;
        assert!(at[0] < at[1], "what is free is less than half a turn: {at:?}");
        assert!(at[1..].chunks(2).all(|turn| turn[0] == turn[1]), "two pieces a turn: {at:?}");
        assert!(at[1..].chunks(2).is_sorted_by(|one, next| one[0] < next[0]), "others in between: {at:?}");
        calling.abort();
        other.abort();
    }

    #[tokio::test(flavor = "local")]
    async fn a_crowd_has_its_turns_in_order_and_one_in_a_round() {
        const CROWD: usize = 100;
        let (clock, calling) = started();
        let round = Rc::new(Cell::new(0));
        let counted = Rc::clone(&round);
        let counting = spawn_local(async move {
            loop {
                yield_now().await;
                counted.set(counted.get() + 1);
            }
        });
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                let (clock, round) = (Rc::clone(&clock), Rc::clone(&round));
                spawn_local(async move { move_halves(&clock, 5, || round.get()).await })
            })
            .collect();
        // One that has left takes no turn from others.
        crowd[0].abort();
        let mut turns = vec![0; 1_000];
        for (at, moving) in crowd.into_iter().enumerate() {
            let Ok(halves) = moving.await else { continue };
            assert!(at > 0 && halves[3] - halves[1] <= 2 * CROWD as u64, "{at}: {halves:?}");
            // The first one is free.
            halves[1..].iter().step_by(2).for_each(|round| turns[*round as usize] += 1);
        }
        assert!(turns.iter().all(|turns| *turns <= 2), "{turns:?}");
        assert_eq!(turns.iter().sum::<usize>(), 2 * (CROWD - 1));
        calling.abort();
        counting.abort();
    }
}
