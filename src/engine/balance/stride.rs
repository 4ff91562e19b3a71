//! `round_robin`: static stride, as gRPC's `weighted_round_robin` has it ("static stride scheduler", gRFC A58): a counter
//! walks columns in a fixed order, and in each round a column is taken or passed over by its own weight. No queue and no
//! state but the counter.
//!
//! gRPC scales weights to 16 bits and clamps them to ten times the mean, lest a round of light ones beside a heavy one
//! be passed over column by column. Here a heavy endpoint has several columns instead, none heavier than the mean, so
//! that shares are exact for any weights and at least half of the columns are taken.

use super::Choosing;
use super::asking::PassedOver;
use crate::engine::trace::Trace;

/// Columns looked at before any usable endpoint will do.
const MOST_STEPS: usize = 64;

/// The fixed order of a level's candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stride {
    columns: Box<[Column]>,
    /// The heaviest column's weight.
    heaviest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    candidate: u32,
    weight: u32,
}

impl Stride {
    /// The order for candidates of these weights, all above 0.
    #[must_use]
    pub fn of(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let total: u64 = weights.clone().map(u64::from).sum();
        let most = total.div_ceil((weights.len() as u64).max(1)).max(1) as u32;
        let mut columns: Vec<(u128, Column)> = Vec::with_capacity(weights.len() * 2);
        for (candidate, weight) in weights.enumerate() {
            let parts = weight.div_ceil(most).max(1);
            // Its columns are evenly apart, and light ones stand scattered (the golden ratio) between heavy ones.
            let phase = (candidate as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1;
            for part in 0..parts {
                let at = (u128::from(part) * u128::from(u64::MAX >> 1) + u128::from(phase)) / u128::from(parts);
                let weight = weight / parts + u32::from(part < weight % parts);
                columns.push((at, Column { candidate: candidate as u32, weight }));
            }
        }
        columns.sort_by_key(|(at, column)| (*at, column.candidate));
        let columns: Box<[Column]> = columns.into_iter().map(|(_, column)| column).collect();
        let heaviest = columns.iter().map(|column| u64::from(column.weight)).max().unwrap_or(1);
        Self { columns, heaviest }
    }

    /// The candidate whose turn it is; `None`: this turn is passed over.
    fn at(&self, turn: u64) -> Option<usize> {
        let count = self.columns.len() as u64;
        let (round, place) = (turn / count, turn % count);
        let Column { candidate, weight } = self.columns[place as usize];
        if u64::from(weight) == self.heaviest {
            return Some(candidate as usize);
        }
        // Columns of one weight are not taken in the same rounds: each starts half a cycle after the one before.
        let point = (u64::from(weight) * (round % self.heaviest) + place * (self.heaviest / 2)) % self.heaviest;
        (point >= self.heaviest - u64::from(weight)).then_some(candidate as usize)
    }
}

/// Position of the candidate whose turn it is and who is usable; after some that are not, any.
pub(super) fn pick(choice: &Choosing<'_>, stride: &Stride, turn: &mut u64, trace: &mut impl Trace) -> Option<usize> {
    if stride.columns.is_empty() {
        return None;
    }
    for _ in 0..MOST_STEPS {
        let candidate = stride.at(*turn);
        let luck = *turn;
        *turn = turn.wrapping_add(1);
        let Some(at) = candidate else { continue };
        match choice.judge(at, || crate::engine::time::Draw(luck).advance()) {
            None => return Some(at),
            Some(why) => choice.tell(at, why, trace),
        }
    }
    let count = choice.level.candidates.len();
    let start = (*turn % count as u64) as usize;
    let open = |at: &usize| !matches!(choice.judge(*at, || 0), Some(PassedOver::Tried | PassedOver::NotRoutable));
    (start..count).chain(0..start).find(open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Counts over whole periods, which are exact whatever turn they start at.
    fn counts(weights: &[u32], periods: u64, start: u64) -> (Vec<u64>, u64) {
        let stride = Stride::of(weights.iter().copied());
        let turns = stride.columns.len() as u64 * stride.heaviest * periods;
        let mut counts = vec![0; weights.len()];
        let mut run = (0u64, 0u64);
        for turn in start..start + turns {
            match stride.at(turn) {
                Some(at) => {
                    counts[at] += 1;
                    run.0 = 0;
                }
                None => run = (run.0 + 1, run.1.max(run.0 + 1)),
            }
        }
        (counts, run.1)
    }

    proptest! {
        #[test]
        fn shares_are_exact_over_a_period(weights in prop::collection::vec(1u32..60, 1..12), start in 0u64..10_000) {
            let expected: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * 2).collect();
            let (counted, _) = counts(&weights, 2, start);
            // A column of weight w is taken w times in `heaviest` rounds.
            prop_assert_eq!(counted, expected);
        }

        #[test]
        fn a_turn_comes_soon(weights in prop::collection::vec(1u32..300, 1..300)) {
            prop_assert!(counts(&weights, 1, 0).1 < MOST_STEPS as u64);
        }
    }

    #[test]
    fn equal_weights_are_a_plain_cycle() {
        let stride = Stride::of([7u32; 5].into_iter());
        let round: Vec<Option<usize>> = (0..5).map(|turn| stride.at(turn)).collect();
        let again: Vec<Option<usize>> = (5..10).map(|turn| stride.at(turn)).collect();
        assert_eq!(round, again);
        let mut sorted: Vec<usize> = round.into_iter().flatten().collect();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_huge_weight_neither_starves_the_others_nor_comes_in_bursts_of_passing_over() {
        let weights: Vec<u32> = [60_000].into_iter().chain([1; 999]).collect();
        let stride = Stride::of(weights.iter().copied());
        let taken: Vec<usize> = (0..200_000).filter_map(|turn| stride.at(turn)).collect();
        assert!(taken.len() >= 100_000, "at least half of the turns are taken");
        let light = taken.iter().filter(|at| **at > 0).count() as f64 / taken.len() as f64;
        assert!((light - 999.0 / 60_999.0).abs() < 0.004, "{light}");
    }

    #[test]
    fn nine_to_one_is_smooth() {
        let stride = Stride::of([9u32, 1].into_iter());
        let taken: Vec<usize> = (0..1_000).filter_map(|turn| stride.at(turn)).collect();
        let ones: Vec<usize> = (0..taken.len()).filter(|at| taken[*at] == 1).collect();
        assert!(ones.windows(2).all(|pair| (8..=12).contains(&(pair[1] - pair[0]))), "{ones:?}");
    }
}
