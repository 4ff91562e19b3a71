//! A pool's members by locality level, with loads, and what its algorithm goes by in each.

use std::sync::Arc;

use super::heritage::Heritage;
use super::{Candidate, Level, Method, Pool};
use crate::engine::balance::maglev::{self, Seat};
use crate::engine::balance::{Alias, Ring, Stride};
use crate::engine::instance::Status;
use crate::engine::locality::{self, Count, History, Place};
use crate::engine::policy::{Balance, Locality};
use crate::engine::snapshot::{Endpoint, EndpointIdx};
use crate::engine::time::Millis;

/// What levels are made from.
pub(super) struct Leveling<'l, 't> {
    pub members: &'l [EndpointIdx],
    pub routable: &'l [Candidate],
    pub endpoints: &'l [Endpoint],
    pub locality: &'l Locality,
    pub place: &'l Place,
    pub balance: &'l Balance,
    /// The pool before, with its history.
    pub before: Option<&'l Pool>,
    pub heritage: &'l Heritage<'t>,
    pub now: Millis,
}

/// What comes of it.
pub(super) struct Levels {
    pub levels: Box<[Level]>,
    pub ranks: Box<[u8]>,
    pub past: Box<[History]>,
}

impl Leveling<'_, '_> {
    /// Members by level, nearest first, with loads, each member's rank, and each rank's history. Levels without members
    /// do not exist, but they have a history: a region that left the catalog and comes back waits, too.
    pub(super) fn levels(&self) -> Levels {
        let ranks = self.locality.prefer.len() + 1;
        let rank =
            |member: EndpointIdx| self.place.level(&self.locality.prefer, &self.endpoints[member as usize].instance);
        let of_members: Box<[u8]> = self.members.iter().map(|member| rank(*member)).collect();
        let mut members: Vec<Vec<EndpointIdx>> = vec![Vec::new(); ranks];
        let mut candidates: Vec<Vec<Candidate>> = vec![Vec::new(); ranks];
        let ranked = self.members.iter().zip(&of_members);
        ranked.for_each(|(member, rank)| members[usize::from(*rank)].push(*member));
        self.routable.iter().for_each(|candidate| candidates[usize::from(rank(candidate.endpoint))].push(*candidate));
        let counts: Vec<Count> = members
            .iter()
            .zip(&candidates)
            .map(|(all, routable)| Count { routable: routable.len() as u32, total: all.len() as u32 })
            .collect();
        let past = self.past(&counts);
        let loads = locality::loads(&counts, self.locality, &past);
        let levels = members
            .into_iter()
            .zip(candidates)
            .zip(loads)
            .enumerate()
            .filter(|(_, ((members, _), _))| !members.is_empty())
            .map(|(rank, ((members, candidates), load))| Level {
                rank: rank as u8,
                load,
                waits: past.get(rank).and_then(|past| past.due(self.locality.failback)),
                total: members.len() as u32,
                alias: Alias::of(candidates.iter().map(|candidate| candidate.weight)),
                method: self.method(&members, &candidates),
                candidates: candidates.into(),
            })
            .collect();
        Levels { levels, ranks: of_members, past }
    }

    /// The histories with this moment added. Where nothing can wait, none is kept.
    fn past(&self, counts: &[Count]) -> Box<[History]> {
        let applies = self.locality.failback > 0 && counts.len() > 1 && self.place.knows_any(&self.locality.prefer);
        if !applies {
            return Box::default();
        }
        let health = locality::strict_health(counts, self.locality);
        // Who had no members had no health to lose: at the start every pool is empty.
        let before = self.before.filter(|pool| !pool.members.is_empty());
        let before = before.map(|pool| &*pool.past).filter(|past| past.len() == counts.len());
        match before {
            Some(past) => past
                .iter()
                .zip(health)
                .map(|(past, health)| past.then(health, self.now, self.locality.failback))
                .collect(),
            // A pool that is seen for the first time has nothing to come back from.
            None => health.into_iter().map(History::from).collect(),
        }
    }

    fn method(&self, members: &[EndpointIdx], candidates: &[Candidate]) -> Method {
        match self.balance {
            Balance::Random => Method::Drawn,
            Balance::Least => Method::Least,
            Balance::RoundRobin => Method::Stride(Stride::of(candidates.iter().map(|candidate| candidate.weight))),
            Balance::Ewma => Method::Ewma { mean: self.mean_cost(candidates) },
            Balance::Hash(_) => Method::Ring(self.ring(members, candidates)),
        }
    }

    fn mean_cost(&self, candidates: &[Candidate]) -> u32 {
        let live = |candidate: &Candidate| &self.endpoints[candidate.endpoint as usize].live;
        let costs = candidates.iter().filter_map(|candidate| live(candidate).cost_micros(self.now));
        let (sum, count) = costs.fold((0.0, 0u32), |(sum, count), cost| (sum + f64::from(cost), count + 1));
        if count == 0 { 0 } else { (sum / f64::from(count)) as u32 }
    }

    /// The table over all members with a weight, routable or not. The weight of one that is out by its status is that
    /// of a passing one, so that a failing check does not make another table.
    fn ring(&self, members: &[EndpointIdx], candidates: &[Candidate]) -> Ring {
        let weight = |endpoint: &Endpoint| match endpoint.status() {
            Status::Passing | Status::Warning => endpoint.weight(),
            Status::Critical | Status::Maintenance => endpoint.instance.weights.passing,
        };
        let mut seats: Vec<Seat<'_>> = Vec::with_capacity(members.len());
        let mut positions = Vec::with_capacity(members.len());
        let mut at = 0;
        for member in members {
            let endpoint = &self.endpoints[*member as usize];
            let weight = weight(endpoint);
            if weight == 0 {
                continue;
            }
            let identity = &*endpoint.instance.identity;
            let ordinal = seats.last().filter(|seat| seat.identity == identity).map_or(0, |seat| seat.ordinal + 1);
            seats.push(Seat { identity, ordinal, weight });
            // Both lists ascend.
            while candidates.get(at).is_some_and(|candidate| candidate.endpoint < *member) {
                at += 1;
            }
            let found = candidates.get(at).is_some_and(|candidate| candidate.endpoint == *member);
            positions.push(if found { at as u32 } else { Ring::NOBODY });
        }
        let fingerprint = maglev::fingerprint(seats.iter().copied());
        let entries = self.heritage.entries(fingerprint).unwrap_or_else(|| {
            let entries = maglev::table(&seats);
            self.heritage.keep(fingerprint, Arc::clone(&entries));
            entries
        });
        let weight = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
        Ring { entries, fingerprint, candidates: positions.into(), weight }
    }
}
