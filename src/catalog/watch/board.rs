//! A desk that several watches write and one reader empties. The lock is never held across a wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::desk::Desk;
use crate::catalog::CatalogUpdate;
use crate::engine::time::Millis;

/// A shared [`Desk`], its clock, and the bell that rings when there is news.
#[derive(Debug)]
pub struct Board {
    desk: Mutex<Desk>,
    bell: Notify,
    origin: Instant,
    gather: Duration,
}

impl Board {
    /// `gather`: after a first change, those of this time go together (L7).
    #[must_use]
    pub fn new(desk: Desk, gather: Duration) -> Self {
        Self { desk: Mutex::new(desk), bell: Notify::new(), origin: Instant::now(), gather }
    }

    /// Milliseconds since the board was made.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(self.origin.elapsed().as_millis() as u64)
    }

    /// Works on the desk and wakes the reader if there is news.
    pub fn with<T>(&self, work: impl FnOnce(&mut Desk, Millis) -> T) -> T {
        let now = self.now();
        let mut desk = self.lock();
        let out = work(&mut desk, now);
        if desk.has_news() {
            self.bell.notify_one();
        }
        out
    }

    /// The next state. The first one comes at once; those that change within the gathering time after it come together
    /// when that time is over. `opened` is the reader's own memory of when the last batch began.
    pub async fn next(&self, opened: &mut Option<Instant>) -> CatalogUpdate {
        loop {
            let within = opened.is_some_and(|at| at.elapsed() < BATCH);
            if within && let Some(update) = self.lock().take() {
                return update;
            }
            if let Some(at) = *opened {
                tokio::time::sleep_until(at + self.gather).await;
            }
            if let Some(update) = self.lock().take() {
                *opened = Some(Instant::now());
                return update;
            }
            self.bell.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes that are there when a batch begins are taken within this time without waiting again.
const BATCH: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::watch::keeper::Answer;
    use crate::catalog::watch::picture::sample;
    use crate::engine::label::Text;

    fn tell(board: &Board, service: &str, index: u64, count: u64) {
        let groups =
            (0..count).map(|n| format!("{service}{n}")).map(|id| (Text::from(id.as_str()), vec![sample(service, &id)]));
        let answer = Answer { index, groups: groups.collect(), ..Answer::default() };
        board.with(|desk, now| desk.judge(0, &service.into(), answer, now));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_comes_at_once_and_those_of_the_next_tenth_together() {
        let board = Board::new(Desk::default(), Duration::from_millis(100));
        let mut opened = None;
        tokio::time::advance(Duration::from_secs(1)).await;
        tell(&board, "a", 2, 1);
        let start = Instant::now();
        assert_eq!(&**board.next(&mut opened).await.service(), "a");
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::advance(Duration::from_millis(10)).await;
        tell(&board, "b", 2, 1);
        tell(&board, "b", 3, 2);
        tell(&board, "c", 2, 1);
        let CatalogUpdate::Service(b) = board.next(&mut opened).await else { panic!("gone") };
        assert_eq!((&*b.name, b.instances.len()), ("b", 2), "only the last state");
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        assert_eq!(&**board.next(&mut opened).await.service(), "c");
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }
}
