//! How well a level was lately: it counts as the worst that it was within `failback`. So a loss shows at once, and a
//! return only after it has lasted.

use smallvec::SmallVec;

use crate::engine::time::Millis;

/// Still so.
const STILL: Millis = Millis(u64::MAX);

/// A level's health, in percent, as far back as it still counts. Immutable: the next publication makes the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Ascending values, and until when each was the case: a sliding window's minimum, kept as a monotone queue.
    seen: SmallVec<[(u8, Millis); 2]>,
}

impl From<u8> for History {
    /// As it is from the start.
    fn from(health: u8) -> Self {
        Self { seen: SmallVec::from_iter([(health, STILL)]) }
    }
}

impl History {
    /// With the health of this moment added, and what is older than `failback` milliseconds dropped.
    #[must_use]
    pub fn then(&self, health: u8, now: Millis, failback: u64) -> Self {
        let mut seen = self.seen.clone();
        match seen.last_mut() {
            Some((last, until)) if *last != health => *until = now,
            _ => {}
        }
        while seen.last().is_some_and(|(value, _)| *value >= health) {
            seen.pop();
        }
        seen.push((health, STILL));
        let past = seen.iter().take_while(|(_, until)| until.plus(failback) <= now).count();
        seen.drain(..past);
        Self { seen }
    }

    /// What it counts as.
    #[must_use]
    pub fn worst(&self) -> u8 {
        self.seen.first().map_or(0, |(value, _)| *value)
    }

    /// When it counts for more if it stays as it is; `None`: it counts as what it is.
    #[must_use]
    pub fn due(&self, failback: u64) -> Option<Millis> {
        self.seen.first().filter(|(_, until)| *until != STILL).map(|(_, until)| until.plus(failback))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_loss_counts_at_once_and_a_return_after_it_has_lasted() {
        let up = History::from(100);
        let down = up.then(0, Millis(1_000), 10_000);
        assert_eq!((down.worst(), down.due(10_000)), (0, None));
        let back = down.then(100, Millis(5_000), 10_000);
        assert_eq!((back.worst(), back.due(10_000)), (0, Some(Millis(15_000))));
        assert_eq!(back.then(100, Millis(14_999), 10_000).worst(), 0);
        let returned = back.then(100, Millis(15_000), 10_000);
        assert_eq!((returned.worst(), returned.due(10_000)), (100, None));
        assert_eq!(returned, up);
    }

    #[test]
    fn one_that_flaps_does_not_return() {
        let mut level = History::from(100);
        for second in 0..60 {
            level = level.then(if second % 5 < 3 { 0 } else { 100 }, Millis(second * 1_000), 10_000);
            assert_eq!(level.worst(), 0, "at {second} s");
        }
    }

    proptest! {
        /// Against the definition: the least value that was the case at any moment of the window.
        #[test]
        fn it_is_the_least_of_the_window(
            steps in prop::collection::vec((0u8..6, 1u64..6), 1..60),
            failback in 1u64..12,
        ) {
            let mut timeline = vec![3u8];
            let mut history = History::from(3);
            let mut now = 0u64;
            for (health, after) in steps {
                let last = timeline[now as usize];
                timeline.resize((now + after) as usize, last);
                now += after;
                timeline.push(health);
                history = history.then(health, Millis(now), failback);
                // Entry t stands for the time from t to t + 1.
                let window = &timeline[now.saturating_sub(failback) as usize..=now as usize];
                prop_assert_eq!(Some(history.worst()), window.iter().min().copied());
            }
        }
    }
}
