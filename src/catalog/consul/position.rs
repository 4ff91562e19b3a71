//! Where a watch stands in Consul's index, and what the index of an answer means (CATALOGS.md 1.4 and 2.3). Pure.

use std::num::NonZeroU64;
use std::time::Duration;

/// Before the next question when the answer gave nothing to block on.
pub const SLOW: Duration = Duration::from_secs(5);

/// How an answer was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// At once, with default consistency.
    Full,
    /// At once, of any server.
    Quick,
    /// Once the index is above the one that was blocked on, or the wait has ended.
    Blocked,
}

/// An answer that may be used, as far as the index is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// `X-Consul-Index`; none where it is missing, 0 or unreadable, which is taken as 1.
    pub index: Option<NonZeroU64>,
    /// A hash of the body.
    pub body: u64,
    /// How it was asked for.
    pub asked: Asked,
    /// Whether a leader is known and the server heard of it lately.
    pub fresh: bool,
    /// Whether somebody waits for a reading, so that even the same bytes must be judged.
    pub reading_due: bool,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The index went down (restart, restored snapshot, a server that lags): the body is not used, everything is read
    /// again at once, and that answer is news whatever its index is.
    Fell,
    /// What was known: the same bytes at the same index.
    Same,
    /// To be judged.
    News,
}

/// An answer's meaning, and the pace after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do with the body.
    pub meaning: Meaning,
    /// Whether to wait for [`SLOW`] before asking again.
    pub slowly: bool,
}

/// A watch's place in the index. It begins without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    index: Option<NonZeroU64>,
    /// The body that was used last and its index.
    seen: Option<(u64, u64)>,
    /// The answer before this one was given up because its index was lower.
    fell: bool,
}

impl Position {
    /// What may be blocked on: the index of the last answer that was used. None: ask without one, which is answered at
    /// once.
    #[must_use]
    pub fn index(&self) -> Option<NonZeroU64> {
        self.index
    }

    /// A failure, another address or another token: the index means nothing there, and the next answer is news.
    pub fn lost(&mut self) {
        (self.index, self.seen) = (None, None);
    }

    /// Takes an answer. `known`: the index of the last answer that was judged, by this watch or one before it; 0 before
    /// the first.
    pub fn meet(&mut self, answered: Answered, known: u64) -> Step {
        let index = answered.index.map_or(1, NonZeroU64::get);
        let again = std::mem::take(&mut self.fell);
        if index < known && !again {
            self.lost();
            self.fell = true;
            return Step { meaning: Meaning::Fell, slowly: false };
        }
        // 1 is what a server says that has nothing yet, or cannot tell: it may answer whoever blocks on it at once.
        let nothing = index == 1 && answered.asked == Asked::Quick && self.index.is_none_or(|index| index.get() == 1);
        let same = self.seen == Some((index, answered.body))
            && answered.asked != Asked::Full
            && answered.fresh
            && !answered.reading_due;
        self.index = answered.index;
        self.seen = Some((index, answered.body));
        let meaning = if same { Meaning::Same } else { Meaning::News };
        Step { meaning, slowly: answered.index.is_none() || nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(index: u64, body: u64, asked: Asked) -> Answered {
        Answered { index: NonZeroU64::new(index), body, asked, fresh: true, reading_due: false }
    }

    fn blocked(index: u64, body: u64) -> Answered {
        answer(index, body, Asked::Blocked)
    }

    /// A watch that has used this answer.
    fn at(index: u64, body: u64) -> Position {
        let mut position = Position::default();
        assert_eq!(position.meet(answer(index, body, Asked::Full), 0).meaning, Meaning::News);
        position
    }

    fn check(position: &mut Position, answered: Answered, known: u64, meaning: Meaning, then: u64) {
        assert_eq!(position.meet(answered, known).meaning, meaning, "{answered:?}");
        assert_eq!(position.index().map_or(0, NonZeroU64::get), then, "{answered:?}");
    }

    #[test]
    fn the_index_follows_the_answers_and_the_same_bytes_are_nothing_new() {
        let mut position = at(7, 1);
        check(&mut position, blocked(7, 1), 7, Meaning::Same, 7);
        check(&mut position, blocked(7, 2), 7, Meaning::News, 7);
        check(&mut position, blocked(900, 2), 7, Meaning::News, 900);
        check(&mut position, blocked(900, 2), 900, Meaning::Same, 900);
    }

    #[test]
    fn a_lower_index_is_read_again_once_and_then_believed_whatever_it_is() {
        let mut position = at(130, 1);
        check(&mut position, blocked(11, 2), 130, Meaning::Fell, 0);
        check(&mut position, answer(9, 3, Asked::Quick), 130, Meaning::News, 9);
        check(&mut position, blocked(8, 3), 9, Meaning::Fell, 0);
    }

    #[test]
    fn what_is_read_after_a_fall_or_a_move_is_judged_even_if_nothing_changed() {
        // A server that lagged: the doubt that it raised ends with the next judgement only.
        let mut position = at(130, 1);
        check(&mut position, blocked(129, 1), 130, Meaning::Fell, 0);
        check(&mut position, answer(130, 1, Asked::Quick), 130, Meaning::News, 130);
        position.lost();
        check(&mut position, answer(130, 1, Asked::Quick), 130, Meaning::News, 130);
    }

    #[test]
    fn a_watch_that_begins_anew_still_notices_that_the_index_fell() {
        check(&mut Position::default(), answer(11, 1, Asked::Full), 130, Meaning::Fell, 0);
    }

    #[test]
    fn without_an_index_nothing_is_blocked_on_and_the_pace_is_slow() {
        let mut position = at(7, 1);
        assert_eq!(position.meet(blocked(0, 1), 1), Step { meaning: Meaning::News, slowly: true });
        assert_eq!(position.index(), None);
        let mut position = Position::default();
        assert!(position.meet(answer(1, 1, Asked::Quick), 0).slowly, "an index of 1");
        assert!(!position.meet(blocked(1, 1), 1).slowly, "it was blocked on");
        assert!(!at(7, 1).meet(answer(1, 1, Asked::Quick), 0).slowly);
    }

    #[test]
    fn a_full_reading_a_server_without_a_leader_and_a_reading_that_is_due_are_judged() {
        for answered in [
            answer(7, 1, Asked::Full),
            Answered { fresh: false, ..blocked(7, 1) },
            Answered { reading_due: true, ..blocked(7, 1) },
        ] {
            check(&mut at(7, 1), answered, 7, Meaning::News, 7);
        }
    }

    proptest! {
        #[test]
        fn of_two_answers_one_is_used_and_only_its_index_is_blocked_on(
            answers in prop::collection::vec((0u64..6, 0u64..3, 0u8..4), 1..40),
        ) {
            let (mut position, mut known, mut fell) = (Position::default(), 0, false);
            for (index, body, kind) in answers {
                if kind == 3 {
                    position.lost();
                    prop_assert_eq!(position.index(), None);
                    continue;
                }
                let asked = [Asked::Full, Asked::Quick, Asked::Blocked][usize::from(kind)];
                let step = position.meet(answer(index, body, asked), known);
                prop_assert!(!(fell && step.meaning == Meaning::Fell), "twice running");
                prop_assert!(!fell || step.meaning == Meaning::News, "what is read again is judged");
                fell = step.meaning == Meaning::Fell;
                prop_assert_eq!(fell, position.index().is_none() && index.max(1) < known && !step.slowly);
                prop_assert_eq!(position.index(), NonZeroU64::new(index).filter(|_| !fell));
                if !fell {
                    known = index.max(1);
                    prop_assert!(position.index().is_some() || step.slowly, "no hot loop");
                }
            }
        }
    }
}
