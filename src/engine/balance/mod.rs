//! Balancing: one endpoint of a pool, one file an algorithm.

mod alias;
mod asking;
mod choosing;
mod ewma;
mod hash;
mod least;
pub mod maglev;
mod memory;
mod slow_start;
mod stride;

use super::snapshot::{Endpoint, EndpointIdx};
use super::table::{Level, Method, Pool};
use super::time::{Draw, Millis};
use super::trace::Trace;
pub use alias::Alias;
pub use asking::{Asking, PassedOver, Picked, Tried};
use choosing::Choosing;
pub use hash::Ring;
use memory::LevelKey;
pub use memory::Memory;
pub use slow_start::Warming;
pub use stride::Stride;

/// One endpoint of the pool that is routable now and was not tried yet. `None`: there is nobody.
///
/// A request that may probe takes an endpoint whose ejection time is over first, by its one permit. Otherwise a level is
/// drawn by its load (by the key, where there is one, so that a key stays in its level) and an endpoint in it by the
/// pool's algorithm; if the level proves empty, the other levels follow, nearest first. Allocates nothing, but for a
/// worker's first pick in a level.
pub fn pick(pool: &Pool, endpoints: &[Endpoint], asking: &Asking<'_>, trace: &mut impl Trace) -> Option<Picked> {
    trace.pool(pool);
    if asking.may_probe
        && let Some(endpoint) = probe(pool, endpoints, asking.now)
    {
        trace.probe(endpoint);
        return Some(Picked {
            endpoint,
            level: level_of(pool, endpoint),
            probe: true,
            panic: false,
            last_resort: false,
        });
    }
    let mut draw = asking.draw;
    let key = asking.key.filter(|_| pool.key.is_some());
    let warming = pool.warming(asking.now);
    let first = match key {
        Some(key) => draw_level(&pool.levels, &mut Draw(key).fork(Draw::LEVEL)),
        None => draw_level(&pool.levels, &mut draw),
    };
    let others = (0..pool.levels.len()).filter(|at| Some(*at) != first);
    let order = || first.into_iter().chain(others.clone()).map(|at| &pool.levels[at]);
    let left = |level: &&Level| Some(level.rank) == asking.elsewhere;
    for level in order().filter(|level| !left(level)).chain(order().filter(left)) {
        trace.level(level);
        let choice = Choosing { level, endpoints, asking, warming };
        if let Some(at) = in_level(pool, &choice, key, &mut draw, trace) {
            let endpoint = level.candidates[at].endpoint;
            return Some(Picked { endpoint, level: level.rank, probe: false, panic: false, last_resort: false });
        }
    }
    None
}

/// By the pool's algorithm.
fn in_level(
    pool: &Pool,
    choice: &Choosing<'_>,
    key: Option<u64>,
    draw: &mut Draw,
    trace: &mut impl Trace,
) -> Option<usize> {
    let of: LevelKey = (pool.file, pool.slot, choice.level.rank);
    match (&choice.level.method, key, choice.asking.memory) {
        (Method::Stride(stride), _, Some(memory)) => {
            memory.turn(of, draw.advance() >> 1, |turn| stride::pick(choice, stride, turn, trace))
        }
        (Method::Drawn, ..) | (Method::Stride(_), _, None) => choice.draw_usable(draw, trace),
        (Method::Ring(ring), Some(key), _) => hash::pick(choice, ring, key, of, trace),
        (Method::Least, ..) | (Method::Ring(_), None, _) => least::pick(choice, draw, trace),
        (Method::Ewma { mean }, ..) => ewma::pick(choice, *mean, draw, trace),
    }
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
    Some(Picked { endpoint, level: level_of(pool, endpoint), probe: false, panic: true, last_resort: false })
}

/// Takes the permit of an ejected member whose time is over; the request must go there. `None`: nobody waits.
#[must_use]
pub fn probe(pool: &Pool, endpoints: &[Endpoint], now: Millis) -> Option<EndpointIdx> {
    pool.ejected.iter().copied().find(|at| endpoints[*at as usize].live.take_probe_permit(now, pool.permit_ms))
}

/// An ejected member whose time is not over yet, for a retry that found nobody else: the client has nothing to lose.
/// Members that a check, an operator or the catalog keeps out are no last resort.
#[must_use]
pub fn last_resort(pool: &Pool, endpoints: &[Endpoint], mut draw: Draw, tried: &Tried) -> Option<Picked> {
    let count = pool.ejected.len();
    let start = draw.below(count as u64) as usize;
    let is_left = |at: &EndpointIdx| endpoints[*at as usize].live.available_but_for_ejection() && !tried.contains(*at);
    let endpoint = (0..count).map(|step| pool.ejected[(start + step) % count]).find(is_left)?;
    Some(Picked { endpoint, level: level_of(pool, endpoint), probe: false, panic: false, last_resort: true })
}

/// As [`probe`] for a request that cannot be repeated: only of a member that has waited for long and is open to any
/// request (`Live::open_trial`).
#[must_use]
pub fn probe_open(pool: &Pool, endpoints: &[Endpoint], now: Millis) -> Option<EndpointIdx> {
    pool.ejected.iter().copied().find(|at| endpoints[*at as usize].live.take_open_permit(now, pool.permit_ms))
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

/// The rank of a member's level, whether or not it is one of the level's candidates. Not for the usual path.
fn level_of(pool: &Pool, endpoint: EndpointIdx) -> u8 {
    pool.members.binary_search(&endpoint).map_or(0, |at| pool.ranks[at])
}

#[cfg(test)]
mod tests;
