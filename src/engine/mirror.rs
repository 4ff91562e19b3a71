//! Whom a copy of a request goes to.

use super::balance::{Asking, Memory, Tried, pick};
use super::route::message::Mirror;
use super::route::{Decision, FileIdx};
use super::snapshot::EndpointIdx;
use super::table::Table;
use super::time::{Draw, Millis};
use super::trace::NoTrace;

/// An endpoint of the mirror's pool that is routable now, by the pool's own locality and algorithm. `None`: there is
/// nobody, and then nobody stands in. Never a probe: what comes of a copy is not looked at. `memory`: the worker's.
#[must_use]
pub fn mirrored_to(
    table: &Table,
    file: FileIdx,
    decision: &Decision,
    mirror: Mirror,
    memory: Option<&Memory>,
    now: Millis,
    draw: Draw,
) -> Option<EndpointIdx> {
    let pool = table.pool(file, decision.variant(mirror.pool)?);
    let tried = Tried::default();
    let asking =
        Asking { key: decision.hash_of(pool), memory, ..Asking::new(now, draw.fork(Draw::MIRROR_PICK), &tried) };
    let picked = pick(pool, table.endpoints(file), &asking, &mut NoTrace);
    picked.map(|picked| picked.endpoint)
}
