//! `ewma`: the better of two by moving latency times requests in flight (Finagle's `PeakEwma`; SEMANTICS.md, *Balancing*).
//!
//! As with `least`, the first is drawn by weight and stays unless the second is clearly better, so that shares follow the
//! weights among endpoints that are alike. "Clearly" with unequal weights: better off with one more request than the
//! first is without it, or at least twice as fast and at most half as loaded for its weight.

use super::Choosing;
use super::least::{SMALL, draw_other};
use crate::engine::time::Draw;
use crate::engine::trace::Trace;

/// What counts of a candidate.
#[derive(Clone, Copy, Debug)]
struct Score {
    /// Microseconds, moving.
    cost: f32,
    in_flight: f32,
    weight: f32,
}

impl Score {
    /// Load per weight with one more request.
    fn with_one_more(self) -> f32 {
        self.cost * (self.in_flight + 1.0) / self.weight
    }
}

/// Position of the candidate chosen; `None`: nobody is usable. `mean`: the cost of who has not answered yet, in
/// microseconds; 0: nobody has.
pub(super) fn pick(choice: &Choosing<'_>, mean: u32, draw: &mut Draw, trace: &mut impl Trace) -> Option<usize> {
    let a = choice.draw_usable(draw, trace)?;
    let first = score(choice, a, if mean > 0 { mean as f32 } else { 0.0 });
    // Before anybody has answered all are alike.
    let unknown = if mean > 0 { mean as f32 } else { first.cost };
    let b = if choice.level.candidates.len() <= SMALL {
        best_other(choice, a, unknown, draw)
    } else {
        draw_other(choice, a, draw)
    };
    let Some(b) = b else { return Some(a) };
    let mut two = [first, score(choice, b, unknown)];
    if two[0].cost <= 0.0 {
        two[0].cost = two[1].cost;
    }
    let chosen = if prefers_second(two) { b } else { a };
    choice.tell_compared(a, b, Some(two.map(|one| one.cost as u64)), chosen, trace);
    Some(chosen)
}

fn score(choice: &Choosing<'_>, at: usize, unknown: f32) -> Score {
    let candidate = choice.level.candidates[at];
    let live = choice.live(at);
    let cost = live.cost_micros(choice.asking.now).unwrap_or(unknown);
    Score { cost, in_flight: live.in_flight() as f32, weight: candidate.weight as f32 }
}

fn prefers_second([a, b]: [Score; 2]) -> bool {
    if a.weight == b.weight {
        return b.cost * (b.in_flight + 1.0) < a.cost * (a.in_flight + 1.0);
    }
    let relieved = b.with_one_more() < a.cost * a.in_flight / a.weight;
    relieved || (2.0 * b.cost < a.cost && 2.0 * b.with_one_more() < a.with_one_more())
}

fn best_other(choice: &Choosing<'_>, a: usize, unknown: f32, draw: &mut Draw) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for at in (0..choice.level.candidates.len()).filter(|at| *at != a) {
        if choice.judge(at, || draw.advance()).is_none() {
            let load = score(choice, at, unknown).with_one_more();
            if best.is_none_or(|(_, least)| load < least) {
                best = Some((at, load));
            }
        }
    }
    best.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(cost: [f32; 2], in_flight: [f32; 2], weight: [f32; 2]) -> bool {
        let one = |at: usize| Score { cost: cost[at], in_flight: in_flight[at], weight: weight[at] };
        prefers_second([one(0), one(1)])
    }

    #[test]
    fn the_second_wins_only_when_it_is_better() {
        assert!(!prefers([5.0, 5.0], [2.0, 2.0], [1.0, 1.0]));
        assert!(prefers([5.0, 4.0], [2.0, 2.0], [1.0, 1.0]));
        assert!(prefers([5.0, 50.0], [20.0, 0.0], [1.0, 1.0]), "slow but free");
        assert!(!prefers([5.0, 5.0], [0.0, 0.0], [1.0, 10.0]), "idle shares stay with the draw");
        assert!(!prefers([5.0, 4.0], [0.0, 0.0], [1.0, 10.0]), "whatever the noise");
        assert!(!prefers([5.0, 5.0], [20.0, 2.0], [10.0, 1.0]), "loaded by weight");
        assert!(prefers([100.0, 5.0], [1.0, 0.0], [10.0, 1.0]), "slow and busy");
        assert!(prefers([100.0, 5.0], [0.0, 0.0], [1.0, 10.0]), "slow and light");
    }
}
