//! All services of one catalog together: judging answers, the mass guard over all of them, and the queue of states that
//! are to be published. Pure; [`super::board`] puts it behind a lock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::guard::{Guard, GuardPolicy, Removal};
use super::keeper::{Answer, Doubt, Group, HoldPolicy, Judgement, Keeper};
use super::picture::picture;
use crate::catalog::{CatalogUpdate, Note, ServiceState};
use crate::engine::label::Text;
use crate::engine::time::Millis;

/// What a judgement did, and what the guard added to it.
#[derive(Debug, Default)]
pub struct Ruling {
    /// The keeper's judgement.
    pub judgement: Judgement,
    /// Services in which the guard holds something since this ruling.
    pub mass_held: BTreeMap<Text, usize>,
    /// When a reading with default consistency would let something go.
    pub next_reading: Option<Millis>,
}

/// One catalog's services. A *part* is one subscription (a datacenter).
#[derive(Debug, Default)]
pub struct Desk {
    keepers: BTreeMap<Text, BTreeMap<usize, Keeper>>,
    guard: Guard,
    hold: HoldPolicy,
    mass: GuardPolicy,
    queue: VecDeque<Text>,
    queued: HashSet<Text>,
    published: HashMap<Text, ServiceState>,
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(hold: HoldPolicy, mass: GuardPolicy) -> Self {
        Self { hold, mass, ..Self::default() }
    }

    /// Judges a whole answer of a part about a service.
    pub fn judge(&mut self, part: usize, service: &Text, answer: Answer, now: Millis) -> Ruling {
        let keeper = self.keepers.entry(service.clone()).or_default().entry(part).or_default();
        let mut judgement = keeper.judge(answer, now, self.hold);
        let removed = std::mem::take(&mut judgement.removed);
        let mut mass_held = BTreeMap::new();
        if !removed.is_empty() {
            let removals =
                removed.iter().cloned().map(|(id, group)| Removal { part, service: service.clone(), id, group });
            let left = self.keepers.values().flat_map(BTreeMap::values).map(Keeper::len).sum();
            for back in self.guard.note(removals, left, now, self.mass) {
                let Some(keeper) = self.keepers.get_mut(&back.service).and_then(|parts| parts.get_mut(&back.part))
                else {
                    continue;
                };
                keeper.hold(back.id, back.group, Doubt::Mass, now);
                *mass_held.entry(back.service.clone()).or_default() += 1;
                self.mark(&back.service);
            }
        }
        if mass_held.is_empty() {
            judgement.removed = removed;
        }
        self.mark(service);
        let next_reading = self.keeper(part, service).and_then(|keeper| keeper.next_reading(now, self.hold));
        Ruling { judgement, mass_held, next_reading }
    }

    /// A part's watch of a service was interrupted.
    pub fn interrupted(&mut self, part: usize, service: &Text, doubt: Doubt, now: Millis) {
        if let Some(keeper) = self.keepers.get_mut(service).and_then(|parts| parts.get_mut(&part)) {
            keeper.interrupted(doubt, now);
        }
    }

    /// Takes over a service from the copy on disk, if the part has not answered. Returns whether it did.
    pub fn warm(&mut self, part: usize, service: &Text, index: u64, groups: BTreeMap<Text, Group>) -> bool {
        let keeper = self.keepers.entry(service.clone()).or_default().entry(part).or_default();
        let taken = keeper.warm(index, groups);
        if taken {
            self.mark(service);
        }
        taken
    }

    /// New addresses for host names.
    pub fn readdress(&mut self, part: usize, service: &Text, groups: &BTreeMap<Text, Group>) -> bool {
        let changed = self
            .keepers
            .get_mut(service)
            .and_then(|parts| parts.get_mut(&part))
            .is_some_and(|keeper| keeper.readdress(groups));
        if changed {
            self.mark(service);
        }
        changed
    }

    /// A part does not follow a service any more. What it held of it goes.
    pub fn forget(&mut self, part: usize, service: &Text) {
        let Some(parts) = self.keepers.get_mut(service) else { return };
        parts.remove(&part);
        if parts.is_empty() {
            self.keepers.remove(service);
        }
        self.mark(service);
    }

    /// Lets go of everything held of a service. Returns how many.
    pub fn accept(&mut self, service: &str) -> usize {
        let Some((name, parts)) = self.keepers.get_key_value(service).map(|(name, _)| name.clone()).and_then(|name| {
            let parts = self.keepers.get_mut(&name)?;
            Some((name, parts))
        }) else {
            return 0;
        };
        let accepted = parts.values_mut().map(Keeper::accept).sum();
        self.mark(&name);
        accepted
    }

    /// Drops what is older than the operator allows (E6). Returns the services that lost everything.
    pub fn drop_stale(&mut self, max_age: u64, now: Millis) -> Vec<Text> {
        let old = |keeper: &Keeper| keeper.answered().is_some_and(|at| now.since(at) > max_age);
        let mut dropped = Vec::new();
        for (name, parts) in &mut self.keepers {
            if parts.values_mut().filter(|keeper| old(keeper)).map(Keeper::drop_stale).fold(false, |a, b| a | b) {
                dropped.push(name.clone());
            }
        }
        for name in &dropped {
            self.mark(name);
        }
        dropped
    }

    /// What is believed of a service by one part.
    #[must_use]
    pub fn keeper(&self, part: usize, service: &str) -> Option<&Keeper> {
        self.keepers.get(service)?.get(&part)
    }

    /// Everything that is believed: part, service, keeper.
    pub fn keepers(&self) -> impl Iterator<Item = (usize, &Text, &Keeper)> {
        self.keepers.iter().flat_map(|(name, parts)| parts.iter().map(move |(part, keeper)| (*part, name, keeper)))
    }

    /// Whether a state waits to be taken.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next state to publish, in the order in which services changed; `None`: nothing new. A state that equals the
    /// one published before is passed over (L8).
    pub fn take(&mut self) -> Option<CatalogUpdate> {
        while let Some(name) = self.queue.pop_front() {
            self.queued.remove(&name);
            let Some(state) = self.state(&name) else {
                if self.published.remove(&name).is_some() {
                    return Some(CatalogUpdate::Gone(name));
                }
                continue;
            };
            let old = self.published.get(&name);
            if old.is_some_and(|old| old.instances == state.instances && old.note == state.note) {
                continue;
            }
            self.published.insert(name, state.clone());
            return Some(CatalogUpdate::Service(state));
        }
        None
    }

    fn state(&self, name: &Text) -> Option<ServiceState> {
        let parts = self.keepers.get(name)?;
        let instances = picture(parts.values().flat_map(Keeper::groups).map(|(_, group)| group));
        let holding = parts.values().filter_map(Keeper::holding).reduce(|a, b| (a.0 + b.0, a.1.max(b.1)));
        let note = holding.map_or(Note::Trusted, |(instances, why)| Note::Held { instances, why });
        let index = parts.values().map(Keeper::index).max().unwrap_or(0);
        Some(ServiceState { name: name.clone(), index, instances, note })
    }

    fn mark(&mut self, service: &Text) {
        if self.queued.insert(service.clone()) {
            self.queue.push_back(service.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::watch::picture::sample;

    fn answer(service: &str, index: u64, ids: std::ops::Range<usize>) -> Answer {
        let groups =
            ids.map(|n| format!("{service}-{n}")).map(|id| (Text::from(id.as_str()), vec![sample(service, &id)]));
        Answer { index, groups: groups.collect(), ..Answer::default() }
    }

    fn drain(desk: &mut Desk) -> Vec<(String, Option<usize>)> {
        std::iter::from_fn(|| desk.take())
            .map(|update| match update {
                CatalogUpdate::Service(state) => (state.name.to_string(), Some(state.instances.len())),
                CatalogUpdate::Gone(name) => (name.to_string(), None),
            })
            .collect()
    }

    #[test]
    fn states_come_whole_in_order_and_only_when_they_differ() {
        let (mut desk, web, api) = (Desk::default(), Text::from("web"), Text::from("api"));
        desk.judge(0, &web, answer("web", 5, 0..2), Millis(0));
        desk.judge(0, &api, answer("api", 5, 0..0), Millis(0));
        desk.judge(0, &web, answer("web", 6, 0..3), Millis(1));
        assert_eq!(drain(&mut desk), [("web".to_owned(), Some(3)), ("api".to_owned(), Some(0))]);
        desk.judge(0, &web, answer("web", 9, 0..3), Millis(2));
        assert_eq!(drain(&mut desk), []);
        desk.forget(0, &web);
        assert_eq!(drain(&mut desk), [("web".to_owned(), None)]);
    }

    #[test]
    fn one_datacenter_that_leaves_does_not_take_the_other_s_instances() {
        let (mut desk, web) = (Desk::default(), Text::from("web"));
        desk.judge(0, &web, answer("web", 5, 0..2), Millis(0));
        desk.judge(1, &web, answer("web", 900, 2..5), Millis(0));
        assert_eq!(drain(&mut desk), [("web".to_owned(), Some(5))]);
        desk.forget(1, &web);
        assert_eq!(drain(&mut desk), [("web".to_owned(), Some(2))]);
    }

    #[test]
    fn a_mass_removal_is_held_in_every_service_until_accepted() {
        let mut desk = Desk::default();
        let services: Vec<Text> = (0..10).map(|n| Text::from(format!("s{n}"))).collect();
        for service in &services {
            desk.judge(0, service, answer(service, 5, 0..3), Millis(0));
        }
        drain(&mut desk);
        for (n, service) in services.iter().enumerate() {
            desk.judge(0, service, answer(service, 6, 0..0), Millis(1_000 + n as u64));
        }
        assert!(drain(&mut desk).iter().all(|(_, count)| *count == Some(3)), "nothing has gone");
        let held: usize = desk.keepers().filter_map(|(_, _, keeper)| keeper.holding()).map(|(count, _)| count).sum();
        assert_eq!(held, 30);
        assert_eq!((desk.accept("s9"), desk.accept("nobody")), (3, 0));
        assert_eq!(drain(&mut desk), [("s9".to_owned(), Some(0))]);
    }
}
