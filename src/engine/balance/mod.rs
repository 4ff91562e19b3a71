//! Balancing: one endpoint of a pool, one file an algorithm.

mod alias;
mod least;

use smallvec::SmallVec;

use super::policy::Balance;
use super::snapshot::{Endpoint, EndpointIdx};
use super::table::{Candidate, Level, Pool};
use super::time::{Draw, Millis};
use super::trace::Trace;
pub use alias::Alias;

/// Endpoints that this request tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried(SmallVec<[EndpointIdx; 4]>);

impl Tried {
    /// Adds one.
    pub fn add(&mut self, endpoint: EndpointIdx) {
        self.0.push(endpoint);
    }

    /// Whether it was tried.
    #[must_use]
    pub fn contains(&self, endpoint: EndpointIdx) -> bool {
        self.0.contains(&endpoint)
    }

    /// How many were tried.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the first try.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whom a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Index in the pool's service.
    pub endpoint: EndpointIdx,
    /// Rank of the locality level it came from; 0 is nearest.
    pub level: u8,
    /// It took the permit to prove an ejected endpoint.
    pub probe: bool,
    /// Taken whatever its health.
    pub panic: bool,
}

/// Draws after the first one when the endpoint drawn is not available any more; then a scan.
const REDRAWS: usize = 4;

/// One endpoint of the pool that is routable now and was not tried yet. `None`: there is nobody.
///
/// With `may_probe` (the request may be retried) an endpoint whose ejection time is over is taken first, by its one
/// permit. Otherwise a level is drawn by its load and an endpoint in it by the pool's algorithm; if the level proves
/// empty, the other levels follow, nearest first. Allocates nothing.
pub fn pick(
    pool: &Pool,
    endpoints: &[Endpoint],
    now: Millis,
    mut draw: Draw,
    tried: &Tried,
    may_probe: bool,
    trace: &mut impl Trace,
) -> Option<Picked> {
    trace.pool(pool);
    if may_probe && let Some(endpoint) = probe(pool, endpoints, now) {
        trace.probe(endpoint);
        return Some(Picked { endpoint, level: level_of(pool, endpoint), probe: true, panic: false });
    }
    let first = draw_level(&pool.levels, &mut draw);
    let others = (0..pool.levels.len()).filter(|at| Some(*at) != first);
    for level in first.into_iter().chain(others).map(|at| &pool.levels[at]) {
        trace.level(level);
        let choice = Choosing { level, endpoints, tried };
        let picked = match pool.balance {
            Balance::Random => choice.draw_usable(&mut draw, trace),
            // The others are refused when a table is built (`Balance::supported`).
            Balance::Least | Balance::Ewma | Balance::RoundRobin | Balance::Hash(_) => {
                least::pick(&choice, &mut draw, trace)
            }
        };
        if let Some(at) = picked {
            let endpoint = level.candidates[at].endpoint;
            return Some(Picked { endpoint, level: level.rank, probe: false, panic: false });
        }
    }
    None
}

/// Any member, whatever its health: a pool's panic. Maintenance and drained are respected.
pub fn pick_any(
    pool: &Pool,
    endpoints: &[Endpoint],
    mut draw: Draw,
    tried: &Tried,
    trace: &mut impl Trace,
) -> Option<Picked> {
    trace.pool(pool);
    let count = pool.members.len();
    let start = draw.below(count as u64) as usize;
    let endpoint = (0..count)
        .map(|step| pool.members[(start + step) % count])
        .find(|at| endpoints[*at as usize].is_open() && !tried.contains(*at))?;
    Some(Picked { endpoint, level: level_of(pool, endpoint), probe: false, panic: true })
}

/// Takes the permit of an ejected member whose time is over; the request must go there. `None`: nobody waits.
#[must_use]
pub fn probe(pool: &Pool, endpoints: &[Endpoint], now: Millis) -> Option<EndpointIdx> {
    pool.ejected.iter().copied().find(|at| endpoints[*at as usize].live.take_probe_permit(now, pool.permit_ms))
}

/// One level being picked from.
struct Choosing<'p> {
    level: &'p Level,
    endpoints: &'p [Endpoint],
    tried: &'p Tried,
}

impl Choosing<'_> {
    /// Position of a usable candidate, drawn by weight; after some redraws by a scan from a random start.
    fn draw_usable(&self, draw: &mut Draw, trace: &mut impl Trace) -> Option<usize> {
        let count = self.level.candidates.len();
        if count == 0 {
            return None;
        }
        for _ in 0..=REDRAWS {
            let at = self.draw_one(draw);
            if self.usable(at) {
                return Some(at);
            }
            trace.passed_over(self.level.candidates[at].endpoint);
        }
        self.scan(draw, |_| true)
    }

    /// Position of the first usable candidate of these from a random start.
    fn scan(&self, draw: &mut Draw, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.level.candidates.len();
        let start = draw.below(count as u64) as usize;
        (start..count).chain(0..start).find(|at| wanted(*at) && self.usable(*at))
    }

    /// Position of a candidate drawn by weight, usable or not. There is at least one.
    fn draw_one(&self, draw: &mut Draw) -> usize {
        match &self.level.alias {
            Some(alias) => alias.draw(draw),
            None => draw.below(self.level.candidates.len() as u64) as usize,
        }
    }

    /// Still routable by the live state, and not tried.
    fn usable(&self, at: usize) -> bool {
        let Candidate { endpoint, refused, .. } = self.level.candidates[at];
        let live = &self.endpoints[endpoint as usize].live;
        let open = if refused { live.available_but_for_ejection() } else { live.available() };
        open && !self.tried.contains(endpoint)
    }

    fn in_flight(&self, at: usize) -> u32 {
        self.endpoints[self.level.candidates[at].endpoint as usize].live.in_flight()
    }
}

/// A level by its load; `None` when no level has any.
fn draw_level(levels: &[Level], draw: &mut Draw) -> Option<usize> {
    if let [only] = levels {
        return (only.load > 0).then_some(0);
    }
    let mut ticket = draw.below(100) as u8;
    levels.iter().position(|level| match ticket.checked_sub(level.load) {
        Some(rest) => {
            ticket = rest;
            false
        }
        None => true,
    })
}

/// The rank of the level that lists an endpoint; the farthest when none does. Not for the usual path.
fn level_of(pool: &Pool, endpoint: EndpointIdx) -> u8 {
    let lists = |level: &&Level| level.candidates.iter().any(|candidate| candidate.endpoint == endpoint);
    pool.levels.iter().find(lists).or(pool.levels.last()).map_or(0, |level| level.rank)
}

#[cfg(test)]
mod tests;
