//! One level being picked from: drawing a candidate, and judging whether it may have the request.

use super::asking::{Asking, PassedOver};
use super::slow_start::Warming;
use crate::engine::snapshot::{Endpoint, Live};
use crate::engine::table::{Candidate, Level};
use crate::engine::time::Draw;
use crate::engine::trace::Trace;

/// Draws after the first one when the endpoint drawn is not available any more, or starts slowly; then a scan.
pub(super) const REDRAWS: usize = 4;

/// One level being picked from.
pub(super) struct Choosing<'p> {
    pub level: &'p Level,
    pub endpoints: &'p [Endpoint],
    pub asking: &'p Asking<'p>,
    /// Somebody may start slowly.
    pub warming: Option<Warming>,
}

impl Choosing<'_> {
    /// Position of a usable candidate, drawn by weight; after some redraws by a scan from a random start. When all that
    /// was drawn only starts slowly, the last of these.
    pub fn draw_usable(&self, draw: &mut Draw, trace: &mut impl Trace) -> Option<usize> {
        if self.level.candidates.is_empty() {
            return None;
        }
        let mut cold = None;
        for _ in 0..=REDRAWS {
            let at = self.draw_one(draw);
            let Some(why) = self.judge(at, || draw.advance()) else { return Some(at) };
            if matches!(why, PassedOver::SlowStart(_)) {
                cold = Some(at);
            }
            self.tell(at, why, trace);
        }
        cold.or_else(|| self.scan(draw, |_| true))
    }

    /// Position of the first candidate of these from a random start that is usable, slow start or not.
    pub fn scan(&self, draw: &mut Draw, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.level.candidates.len();
        let start = draw.below(count as u64) as usize;
        (start..count).chain(0..start).find(|at| wanted(*at) && self.closed(*at).is_none())
    }

    /// Position of a candidate drawn by weight, usable or not. There is at least one.
    pub fn draw_one(&self, draw: &mut Draw) -> usize {
        match &self.level.alias {
            Some(alias) => alias.draw(draw),
            None => draw.below(self.level.candidates.len() as u64) as usize,
        }
    }

    /// Why a candidate may not have the request; `None`: it may. `luck` is asked for only while it starts slowly.
    pub fn judge(&self, at: usize, luck: impl FnOnce() -> u64) -> Option<PassedOver> {
        self.closed(at).or_else(|| {
            let chance = self.warming?.chance(self.live(at).first_routable())?;
            (Draw(luck()).below(1_000_000) >= u64::from(chance)).then_some(PassedOver::SlowStart(chance))
        })
    }

    /// Not routable by the live state, or tried.
    pub fn closed(&self, at: usize) -> Option<PassedOver> {
        let Candidate { endpoint, refused, .. } = self.level.candidates[at];
        let live = self.live(at);
        let open = if refused { live.available_but_for_ejection() } else { live.available() };
        if !open {
            return Some(PassedOver::NotRoutable);
        }
        if self.asking.proven && live.is_failing() {
            return Some(PassedOver::Failing);
        }
        self.asking.tried.contains(endpoint).then_some(PassedOver::Tried)
    }

    pub fn live(&self, at: usize) -> &Live {
        &self.endpoints[self.level.candidates[at].endpoint as usize].live
    }

    pub fn in_flight(&self, at: usize) -> u32 {
        self.live(at).in_flight()
    }

    pub fn tell(&self, at: usize, why: PassedOver, trace: &mut impl Trace) {
        trace.passed_over(self.level.candidates[at].endpoint, why);
    }

    /// Two were compared, by requests in flight and, if they count, costs in microseconds.
    pub fn tell_compared<T: Trace>(&self, a: usize, b: usize, costs: Option<[u64; 2]>, chosen: usize, trace: &mut T) {
        if T::ENABLED {
            let name = |at: usize| self.level.candidates[at].endpoint;
            trace.compared(name(a), name(b), [self.in_flight(a), self.in_flight(b)], costs, name(chosen));
        }
    }
}
