//! Turns: how much of what strangers may ask for all at once is done in one round of a worker, so that who is connected
//! already is served in between.
//!
//! A round ends when the runtime has looked at its events again and everything that was ready before has run. Without
//! turns, thousands of connections that come at once are all accepted and all ready in the same round, and a request on
//! an older connection waits for every one of them.

use tokio::sync::{Notify, Semaphore};

/// Connections that are accepted, or taken over, in a round. Each is ready about four times until its first request is
/// answered, so that about sixty of them are ready at a time.
pub const CONNECTIONS: usize = 16;
/// Steps of TLS handshakes in a round. One may cost a millisecond (RSA).
pub const HANDSHAKES: usize = 8;

/// Turns of one kind, in order of arrival.
#[derive(Debug)]
pub struct Turns {
    each_round: usize,
    left: Semaphore,
    used_up: Notify,
}

impl Turns {
    /// So many in each round. [`Turns::renew`] has to run beside it.
    #[must_use]
    pub fn new(each_round: usize) -> Self {
        Self { each_round, left: Semaphore::new(each_round), used_up: Notify::new() }
    }

    /// Waits for a turn and takes it; at once while there is one left in this round.
    pub async fn take(&self) {
        // It is never closed.
        if let Ok(turn) = self.left.acquire().await {
            turn.forget();
        }
        if self.left.available_permits() == 0 {
            self.used_up.notify_one();
        }
    }

    /// Gives out the turns of each round. Ends with its worker.
    pub async fn renew(&self) {
        loop {
            self.used_up.notified().await;
            // Comes back behind all that is ready, and behind what the next look at events makes so.
            tokio::task::yield_now().await;
            self.left.add_permits(self.each_round.saturating_sub(self.left.available_permits()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::{spawn_local, yield_now};

    use super::*;

    /// How many turns a crowd had between two rounds of somebody else, at most; and how many in all.
    async fn crowded(crowd: usize, leaves: impl Fn(usize) -> bool) -> (usize, usize) {
        let (turns, had) = (Rc::new(Turns::new(8)), Rc::new(Cell::new(0)));
        let renewing = Rc::clone(&turns);
        let renewing = spawn_local(async move { renewing.renew().await });
        let crowd: Vec<_> = (0..crowd)
            .map(|_| {
                let (turns, had) = (Rc::clone(&turns), Rc::clone(&had));
                spawn_local(async move {
                    turns.take().await;
                    had.set(had.get() + 1);
                })
            })
            .collect();
        let mut most = 0;
        let (mut before, mut quiet) = (had.get(), 0);
        while quiet < 3 {
            crowd.iter().enumerate().filter(|(at, _)| leaves(*at)).for_each(|(_, task)| task.abort());
            yield_now().await;
            most = most.max(had.get() - before);
            quiet = if had.get() == before { quiet + 1 } else { 0 };
            before = had.get();
        }
        renewing.abort();
        (most, had.get())
    }

    #[tokio::test(flavor = "local")]
    async fn a_crowd_takes_its_turns_round_by_round_and_everybody_gets_one() {
        assert_eq!(crowded(100, |_| false).await, (8, 100));
        assert_eq!(crowded(3, |_| false).await, (3, 3));
    }

    #[tokio::test(flavor = "local")]
    async fn who_leaves_the_line_takes_no_turn_from_others() {
        let (most, had) = crowded(100, |at| at % 2 == 1).await;
        assert!(most <= 16 && (50..=58).contains(&had), "{most} in a round, {had} in all");
    }
}
