//! Resolving one file's pools against its service: members from the selector, then who of them is routable and where.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::{Candidate, FilePools, Level, MAX_VARIANTS, Pool, PoolSelector, TableError, Variant};
use crate::engine::balance::Alias;
use crate::engine::expr::ast::{Builtin, Field};
use crate::engine::health::State;
use crate::engine::health::cap::Cap;
use crate::engine::instance::{Instance, Status};
use crate::engine::label::Text;
use crate::engine::locality::{self, Count, Place};
use crate::engine::policy::Locality;
use crate::engine::route::{PoolSlot, RouterFile, RouterPool};
use crate::engine::snapshot::{Bitset, Endpoint, EndpointIdx, ServiceSnapshot};

/// What resolving a file's pools needs.
pub(super) struct Resolving<'t> {
    pub(super) file: &'t RouterFile,
    pub(super) selectors: &'t [PoolSelector],
    pub(super) place: &'t Place,
}

/// Values of the fields that are compared with request labels, and who has them.
type Combination = (SmallVec<[Text; 2]>, Vec<EndpointIdx>);

impl Resolving<'_> {
    /// Everything of one file.
    pub(super) fn all(&self, service: Option<Arc<ServiceSnapshot>>) -> Result<FilePools, TableError> {
        let endpoints = service.as_ref().map_or(&[][..], |service| &service.endpoints);
        let mut pools = Vec::with_capacity(self.file.pools.len());
        let mut combinations = Vec::new();
        for (slot, (spec, selector)) in self.file.pools.iter().zip(self.selectors).enumerate() {
            let mut members = service.as_ref().map_or_else(|| Bitset::none(0), |s| self.members(selector, s));
            if !spec.refers.is_empty() {
                combinations.push((slot as PoolSlot, self.combinations(spec, &members, endpoints)?));
                members = Bitset::none(endpoints.len());
            }
            pools.push(Arc::new(self.pool(spec, members.iter().collect(), Arc::default(), endpoints)));
        }
        let mut variants = Vec::with_capacity(combinations.len());
        for (slot, found) in combinations {
            let mut of_slot = Vec::with_capacity(found.len());
            for (values, members) in found {
                of_slot.push(Variant { values: values.clone(), slot: pools.len() as PoolSlot });
                let spec = &self.file.pools[slot as usize];
                pools.push(Arc::new(self.pool(spec, members.into(), values.as_slice().into(), endpoints)));
            }
            variants.push((slot, of_slot));
        }
        Ok(FilePools { service, pools, variants })
    }

    /// The same members judged anew: only pools that hold one of `touched` change.
    pub(super) fn refreshed(&self, old: &FilePools, touched: &Bitset) -> FilePools {
        let endpoints = old.endpoints();
        let refresh = |(at, pool): (usize, &Arc<Pool>)| {
            if !pool.members.iter().any(|member| touched.contains(*member)) {
                return Arc::clone(pool);
            }
            let spec = &self.file.pools[old.compiled(at as PoolSlot) as usize];
            Arc::new(self.pool(spec, Arc::clone(&pool.members), Arc::clone(&pool.variant), endpoints))
        };
        FilePools {
            service: old.service.clone(),
            pools: old.pools.iter().enumerate().map(refresh).collect(),
            variants: old.variants.clone(),
        }
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
    fn pool(
        &self,
        spec: &RouterPool,
        members: Arc<[EndpointIdx]>,
        variant: Arc<[Text]>,
        endpoints: &[Endpoint],
    ) -> Pool {
        let Standing { routable, ejected, refused } = stand(spec, &members, endpoints);
        let locality = &self.file.locality;
        Pool {
            name: Arc::clone(&spec.name),
            variant,
            routable: routable.len() as u32,
            open: members.iter().filter(|member| endpoints[**member as usize].is_open()).count() as u32,
            min: spec.min.of(members.len()) as u32,
            levels: levels(&members, &routable, endpoints, locality, self.place),
            members,
            balance: spec.balance.clone(),
            panic: spec.panic,
            ejected,
            refused,
            permit_ms: self.file.policies.timeouts.first_byte,
        }
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

/// Members by level, nearest first, with loads. Levels without members do not exist.
fn levels(
    members: &[EndpointIdx],
    routable: &[Candidate],
    endpoints: &[Endpoint],
    locality: &Locality,
    place: &Place,
) -> Box<[Level]> {
    if members.is_empty() {
        return Box::default();
    }
    let ranks = locality.prefer.len() + 1;
    let rank = |member: EndpointIdx| place.level(&locality.prefer, &endpoints[member as usize].instance) as usize;
    let mut totals = vec![0u32; ranks];
    let mut candidates: Vec<Vec<Candidate>> = vec![Vec::new(); ranks];
    members.iter().for_each(|member| totals[rank(*member)] += 1);
    routable.iter().for_each(|candidate| candidates[rank(candidate.endpoint)].push(*candidate));
    let named: Vec<usize> = (0..ranks).filter(|rank| totals[*rank] > 0).collect();
    let counts: Vec<Count> =
        named.iter().map(|rank| Count { routable: candidates[*rank].len() as u32, total: totals[*rank] }).collect();
    let loads = locality::loads(&counts, locality);
    named
        .into_iter()
        .zip(loads)
        .map(|(rank, load)| {
            let candidates: Box<[Candidate]> = std::mem::take(&mut candidates[rank]).into();
            let alias = Alias::of(candidates.iter().map(|candidate| candidate.weight));
            Level { rank: rank as u8, load, total: totals[rank], candidates, alias }
        })
        .collect()
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
