//! `least`: the better of two by requests in flight per weight (SEMANTICS.md, *Balancing*).
//!
//! The first is drawn by weight and wins ties, so shares are exact when idle. The plain "lower score wins" would give a
//! weight of 1 beside 10 nothing at all.

use super::Choosing;
use super::choosing::REDRAWS;
use crate::engine::time::Draw;
use crate::engine::trace::Trace;

/// Up to this many candidates the second is the best of all others.
pub(super) const SMALL: usize = 4;

/// Position of the candidate chosen; `None`: nobody is usable.
pub(super) fn pick(choice: &Choosing<'_>, draw: &mut Draw, trace: &mut impl Trace) -> Option<usize> {
    let a = choice.draw_usable(draw, trace)?;
    let b =
        if choice.level.candidates.len() <= SMALL { best_other(choice, a, draw) } else { draw_other(choice, a, draw) };
    let Some(b) = b else { return Some(a) };
    let candidates = &choice.level.candidates;
    let (loads, weights) = ([choice.in_flight(a), choice.in_flight(b)], [candidates[a].weight, candidates[b].weight]);
    let chosen = if prefers_second(loads, weights) { b } else { a };
    choice.tell_compared(a, b, None, chosen, trace);
    Some(chosen)
}

/// Equal weights: the second if it has fewer in flight. Unequal: only if it would still be better off with one more.
fn prefers_second(in_flight: [u32; 2], weight: [u32; 2]) -> bool {
    let [a, b] = in_flight.map(u64::from);
    let [weight_a, weight_b] = weight.map(u64::from);
    if weight_a == weight_b { b < a } else { (b + 1) * weight_a < a * weight_b }
}

/// The best of the others by `(in_flight + 1) / weight`; the first of equals.
fn best_other(choice: &Choosing<'_>, a: usize, draw: &mut Draw) -> Option<usize> {
    let candidates = &choice.level.candidates;
    let mut best: Option<(usize, u64, u64)> = None;
    for at in (0..candidates.len()).filter(|at| *at != a) {
        if choice.judge(at, || draw.advance()).is_some() {
            continue;
        }
        let (load, weight) = (u64::from(choice.in_flight(at)) + 1, u64::from(candidates[at].weight));
        if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
            best = Some((at, load, weight));
        }
    }
    best.map(|(at, ..)| at)
}

/// A second usable one drawn by weight. When a few draws find nobody but the first (its weight may be most of the
/// total), any other, so that a heavy endpoint is relieved too.
pub(super) fn draw_other(choice: &Choosing<'_>, a: usize, draw: &mut Draw) -> Option<usize> {
    for _ in 0..=REDRAWS {
        let at = choice.draw_one(draw);
        if at != a && choice.judge(at, || draw.advance()).is_none() {
            return Some(at);
        }
    }
    choice.scan(draw, |at| at != a)
}

#[cfg(test)]
mod tests {
    use super::prefers_second;

    #[test]
    fn the_second_wins_only_when_clearly_better() {
        assert!(!prefers_second([3, 3], [1, 1]));
        assert!(prefers_second([3, 2], [1, 1]));
        assert!(!prefers_second([0, 0], [1, 10]), "idle shares stay with the draw");
        assert!(!prefers_second([1, 0], [10, 1]));
        assert!(prefers_second([11, 0], [10, 1]));
        assert!(prefers_second([1, 0], [1, 10]));
    }
}
