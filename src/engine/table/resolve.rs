//! Resolving one file's pools against its service: members from the selector, then who of them is routable and where.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::heritage::Heritage;
use super::levels::{Leveling, Levels};
use super::{Candidate, FilePools, MAX_VARIANTS, NEVER, Pool, PoolSelector, TableError, Variant};
use crate::engine::expr::ast::{Builtin, Field};
use crate::engine::health::State;
use crate::engine::health::cap::Cap;
use crate::engine::instance::{Instance, Status};
use crate::engine::label::Text;
use crate::engine::locality::Place;
use crate::engine::policy::{Balance, SlowStart};
use crate::engine::route::{FileIdx, PoolSlot, RouterFile, RouterPool};
use crate::engine::snapshot::{Bitset, Endpoint, EndpointIdx, ServiceSnapshot};
use crate::engine::time::Millis;

/// What resolving a file's pools needs.
pub(super) struct Resolving<'t> {
    pub(super) at: FileIdx,
    pub(super) file: &'t RouterFile,
    pub(super) selectors: &'t [PoolSelector],
    pub(super) place: &'t Place,
    pub(super) now: Millis,
}

/// One pool to be made.
struct Making<'m> {
    slot: PoolSlot,
    spec: &'m RouterPool,
    members: Arc<[EndpointIdx]>,
    variant: Arc<[Text]>,
}

/// Values of the fields that are compared with request labels, and who has them.
type Combination = (SmallVec<[Text; 2]>, Vec<EndpointIdx>);

impl Resolving<'_> {
    /// Everything of one file.
    pub(super) fn all(
        &self,
        service: Option<Arc<ServiceSnapshot>>,
        heritage: &Heritage<'_>,
    ) -> Result<FilePools, TableError> {
        let endpoints = service.as_ref().map_or(&[][..], |service| &service.endpoints);
        let mut pools = Vec::with_capacity(self.file.pools.len());
        let mut combinations = Vec::new();
        for (slot, (spec, selector)) in self.file.pools.iter().zip(self.selectors).enumerate() {
            let mut members = service.as_ref().map_or_else(|| Bitset::none(0), |s| self.members(selector, s));
            if !spec.refers.is_empty() {
                combinations.push((slot as PoolSlot, self.combinations(spec, &members, endpoints)?));
                members = Bitset::none(endpoints.len());
            }
            let (slot, members) = (slot as PoolSlot, members.iter().collect());
            let making = Making { slot, spec, members, variant: Arc::default() };
            pools.push(Arc::new(self.pool(making, endpoints, heritage)));
        }
        let mut variants = Vec::with_capacity(combinations.len());
        for (slot, found) in combinations {
            let mut of_slot = Vec::with_capacity(found.len());
            for (values, members) in found {
                let variant = values.as_slice().into();
                let spec = &self.file.pools[slot as usize];
                let making = Making { slot: pools.len() as PoolSlot, spec, members: members.into(), variant };
                of_slot.push(Variant { values, slot: making.slot });
                pools.push(Arc::new(self.pool(making, endpoints, heritage)));
            }
            variants.push((slot, of_slot));
        }
        let due = due(&pools, self.file.locality.failback);
        Ok(FilePools { service, pools, due, variants })
    }

    /// The same members judged anew, of the pools that are to be.
    pub(super) fn refreshed(&self, old: &FilePools, to_be: impl Fn(&Pool) -> bool) -> FilePools {
        let endpoints = old.endpoints();
        let heritage = Heritage::of([old]);
        let refresh = |(at, pool): (usize, &Arc<Pool>)| {
            if !to_be(pool) {
                return Arc::clone(pool);
            }
            let spec = &self.file.pools[old.compiled(at as PoolSlot) as usize];
            let (members, variant) = (Arc::clone(&pool.members), Arc::clone(&pool.variant));
            Arc::new(self.pool(Making { slot: at as PoolSlot, spec, members, variant }, endpoints, &heritage))
        };
        let pools: Vec<Arc<Pool>> = old.pools.iter().enumerate().map(refresh).collect();
        let due = due(&pools, self.file.locality.failback);
        FilePools { service: old.service.clone(), pools, due, variants: old.variants.clone() }
    }

    /// Who belongs to a pool: its selector's answer without the instances of lanes that it does not ask for.
    fn members(&self, selector: &PoolSelector, service: &ServiceSnapshot) -> Bitset {
        let mut members = match &selector.select {
            Some(select) => select.select(service),
            None => Bitset::all(service.endpoints.len()),
        };
        if selector.isolated {
            members.subtract(&self.in_lanes(service));
        }
        members
    }

    /// Instances of a lane of their own.
    pub(super) fn in_lanes(&self, service: &ServiceSnapshot) -> Bitset {
        let Some(lanes) = &self.file.lanes else { return Bitset::none(service.endpoints.len()) };
        let field = Field::Label(Arc::clone(&lanes.label));
        service.index.having(&field, &service.endpoints, |value| lanes.base.iter().all(|base| &**base != value))
    }

    /// Members by the values of the fields that are compared with request labels, in order of the values.
    fn combinations(
        &self,
        spec: &RouterPool,
        members: &Bitset,
        endpoints: &[Endpoint],
    ) -> Result<Vec<Combination>, TableError> {
        let mut rows: Vec<(SmallVec<[Text; 2]>, EndpointIdx)> = Vec::new();
        for member in members.iter() {
            let instance = &endpoints[member as usize].instance;
            let mut values: Vec<SmallVec<[Text; 2]>> = vec![SmallVec::new()];
            for (field, _) in &spec.refers {
                let of_field = values_of(instance, field);
                let longer = |have: &SmallVec<[Text; 2]>| {
                    let have = have.clone();
                    of_field.iter().map(move |value| have.iter().chain([value]).cloned().collect()).collect::<Vec<_>>()
                };
                values = values.iter().flat_map(longer).collect();
            }
            rows.extend(values.into_iter().map(|values| (values, member)));
        }
        rows.sort_unstable();
        rows.dedup();
        let found: Vec<_> = rows
            .chunk_by(|a, b| a.0 == b.0)
            .map(|rows| (rows[0].0.clone(), rows.iter().map(|(_, member)| *member).collect()))
            .collect();
        if found.len() > MAX_VARIANTS {
            let (service, pool) = (Arc::clone(&self.file.service), Arc::clone(&spec.name));
            return Err(TableError::TooManyVariants { service, pool, count: found.len() });
        }
        Ok(found)
    }

    /// A pool of these members as of now.
    fn pool(&self, making: Making<'_>, endpoints: &[Endpoint], heritage: &Heritage<'_>) -> Pool {
        let Making { slot, spec, members, variant } = making;
        let Standing { routable, ejected, refused } = stand(spec, &members, endpoints);
        let warmth = Warmth::of(&routable, endpoints, self.file.slow_start, self.now);
        let leveling = Leveling {
            members: &members,
            routable: &routable,
            endpoints,
            locality: &self.file.locality,
            place: self.place,
            balance: &spec.balance,
            before: heritage.pool(slot, &spec.name, &variant),
            heritage,
            now: self.now,
        };
        let Levels { levels, ranks, past } = leveling.levels();
        Pool {
            file: self.at,
            slot,
            name: Arc::clone(&spec.name),
            variant,
            routable: routable.len() as u32,
            open: members.iter().filter(|member| endpoints[**member as usize].is_open()).count() as u32,
            min: spec.min.of(members.len()) as u32,
            levels,
            ranks,
            past,
            members,
            balance: spec.balance.clone(),
            key: spec.key.filter(|_| matches!(spec.balance, Balance::Hash(_))),
            slow_start: self.file.slow_start,
            warm_at: warmth.warm_at,
            oldest: warmth.oldest,
            panic: spec.panic,
            ejected,
            refused,
            permit_ms: self.file.policies.timeouts.first_byte,
        }
    }
}

/// When a load of these pools may rise again by itself.
fn due(pools: &[Arc<Pool>], failback: u64) -> Millis {
    pools.iter().flat_map(|pool| &pool.past).filter_map(|past| past.due(failback)).min().unwrap_or(NEVER)
}

/// Who of a pool is new in it.
struct Warmth {
    oldest: Millis,
    warm_at: Millis,
}

impl Warmth {
    /// Notes who is routable for the first time.
    fn of(routable: &[Candidate], endpoints: &[Endpoint], slow_start: SlowStart, now: Millis) -> Self {
        let since = |candidate: &Candidate| endpoints[candidate.endpoint as usize].live.note_routable(now);
        let (mut oldest, mut newest) = (NEVER, Millis(0));
        for since in routable.iter().map(since) {
            (oldest, newest) = (oldest.min(since), newest.max(since));
        }
        let new = slow_start.is_on() && newest > oldest;
        Self { oldest, warm_at: if new { newest.plus(slow_start.window) } else { Millis(0) } }
    }
}

/// How a pool's members stand.
struct Standing {
    routable: Vec<Candidate>,
    ejected: Box<[EndpointIdx]>,
    refused: Box<[EndpointIdx]>,
}

/// Whether the catalog lets an endpoint take traffic in this pool.
pub(super) fn accepted(spec: &RouterPool, endpoint: &Endpoint) -> bool {
    let status = match endpoint.status() {
        Status::Passing => spec.accept.0,
        Status::Warning => spec.accept.1,
        Status::Critical | Status::Maintenance => false,
    };
    status && endpoint.weight() > 0
}

/// The only definition of *routable* (SEMANTICS.md), with the ejection cap applied: the longest ejected are skipped
/// first, the rest stay in.
fn stand(spec: &RouterPool, members: &[EndpointIdx], endpoints: &[Endpoint]) -> Standing {
    let mut candidates = Vec::with_capacity(members.len());
    let mut out = Vec::new();
    for member in members {
        let endpoint = &endpoints[*member as usize];
        if !accepted(spec, endpoint) || !endpoint.live.available_but_for_ejection() {
            continue;
        }
        if !matches!(endpoint.live.state(), State::Healthy { .. }) {
            out.push((endpoint.live.changed(), *member));
        }
        candidates.push(Candidate { endpoint: *member, weight: endpoint.weight(), refused: false });
    }
    if out.is_empty() {
        return Standing { routable: candidates, ejected: Box::default(), refused: Box::default() };
    }
    out.sort_unstable();
    let cap = Cap { max_ejection_percent: spec.max_ejection_percent, min_routable: spec.min_routable };
    let (skipped, kept) = out.split_at(cap.allowed(candidates.len()).min(out.len()));
    let skipped: FxHashSet<EndpointIdx> = skipped.iter().map(|(_, member)| *member).collect();
    let mut refused: Vec<EndpointIdx> = kept.iter().map(|(_, member)| *member).collect();
    refused.sort_unstable();
    candidates.retain(|candidate| !skipped.contains(&candidate.endpoint));
    for candidate in &mut candidates {
        candidate.refused = refused.binary_search(&candidate.endpoint).is_ok();
    }
    let ejected = out.iter().map(|(_, member)| *member).collect();
    Standing { routable: candidates, ejected, refused: refused.into() }
}

/// The values of an instance's field, as the index sees them; several only for tags.
fn values_of(instance: &Instance, field: &Field) -> SmallVec<[Text; 2]> {
    let some = |text: &Text| if text.is_empty() { SmallVec::new() } else { SmallVec::from_iter([Arc::clone(text)]) };
    match field {
        Field::Label(key) => instance.labels.value(key).map(Text::from).into_iter().collect(),
        Field::Builtin(Builtin::Tags) => instance.tags.iter().cloned().collect(),
        Field::Builtin(Builtin::Id) => SmallVec::from_iter([Arc::clone(&instance.id)]),
        Field::Builtin(Builtin::Address) => SmallVec::from_iter([Arc::clone(&instance.host)]),
        Field::Builtin(Builtin::Node) => some(&instance.node),
        Field::Builtin(Builtin::Dc) => some(&instance.dc),
        Field::Builtin(Builtin::Port) => SmallVec::from_iter([Text::from(instance.addr.port().to_string())]),
        Field::Builtin(Builtin::Status) => SmallVec::from_iter([Text::from(instance.status.word())]),
        _ => SmallVec::new(),
    }
}
