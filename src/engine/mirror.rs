//! Whom a copy of a request goes to.

use super::balance::{Tried, pick};
use super::route::message::Mirror;
use super::route::{Decision, FileIdx};
use super::snapshot::EndpointIdx;
use super::table::Table;
use super::time::{Draw, Millis};
use super::trace::NoTrace;

/// An endpoint of the mirror's pool that is routable now, by the pool's own locality and algorithm. `None`: there is
/// nobody, and then nobody stands in. Never a probe: what comes of a copy is not looked at.
#[must_use]
pub fn mirrored_to(
    table: &Table,
    file: FileIdx,
    decision: &Decision,
    mirror: Mirror,
    now: Millis,
    draw: Draw,
) -> Option<EndpointIdx> {
    let pool = table.pool(file, decision.variant(mirror.pool)?);
    let draw = draw.fork(Draw::MIRROR_PICK);
    let picked = pick(pool, table.endpoints(file), now, draw, &Tried::default(), false, &mut NoTrace);
    picked.map(|picked| picked.endpoint)
}
