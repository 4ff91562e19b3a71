//! Locality: which level an instance is on for this proxy, and how much each level gets.

mod history;

use serde::Serialize;

use super::instance::Instance;
use super::label::{Labels, Text};
use super::policy::Locality;
pub use history::History;

/// Where this proxy is: its own region, zone and the like, by label key. From its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its labels.
    pub labels: Labels,
}

impl Place {
    /// A place from its labels.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        Self { labels }
    }

    /// Whether it has any of these labels. Without one everybody is on level 0, and `/ready` says so.
    #[must_use]
    pub fn knows_any(&self, prefer: &[Text]) -> bool {
        prefer.iter().any(|key| self.labels.value(key).is_some())
    }

    /// The level of an instance: how many of the preferred labels, counted from the finest, are beyond the longest
    /// matching prefix. With `[region, zone]`: 0 same zone, 1 same region, 2 elsewhere.
    #[must_use]
    pub fn level(&self, prefer: &[Text], instance: &Instance) -> u8 {
        if !self.knows_any(prefer) {
            return 0;
        }
        let matching = prefer
            .iter()
            .take_while(|key| {
                let own = self.labels.value(key);
                own.is_some() && own == label(instance, key)
            })
            .count();
        u8::try_from(prefer.len() - matching).unwrap_or(u8::MAX)
    }
}

/// `dc` is the built-in, as in expressions.
fn label<'i>(instance: &'i Instance, key: &str) -> Option<&'i str> {
    if key == "dc" { Some(&*instance.dc).filter(|dc| !dc.is_empty()) } else { instance.labels.value(key) }
}

/// A level's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Routable ones.
    pub routable: u32,
    /// All of the catalog.
    pub total: u32,
}

/// The load of each level in percent, nearest first (Envoy's priority load, floored integers; SEMANTICS.md, *Locality*).
/// They sum to 100 unless nobody is routable, then all are 0. What flooring leaves over goes to the first healthy level.
///
/// A level with fewer than `min_local` routable gets nothing, and one with a `past` counts as the worst that it was
/// lately, unless that would leave nobody. `past` has an entry a level, or none.
#[must_use]
pub fn loads(levels: &[Count], policy: &Locality, past: &[History]) -> Vec<u8> {
    let lately = past.iter().map(History::worst).collect();
    let plain = || levels.iter().map(|level| health(*level, policy.spill)).collect();
    let found = [lately, strict_health(levels, policy), plain()];
    let health = found.into_iter().find(|health: &Vec<u8>| health.iter().any(|health| *health > 0));
    health.map_or_else(|| vec![0; levels.len()], |health| shares(&health))
}

/// How healthy each level is, in percent: over-provisioned by `spill`, and nothing below `min_local` but for the last
/// level that has members.
#[must_use]
pub fn strict_health(levels: &[Count], policy: &Locality) -> Vec<u8> {
    let last = levels.iter().rposition(|level| level.total > 0).unwrap_or(0);
    let few = |at: usize, level: &Count| at < last && level.routable < policy.min_local;
    levels.iter().enumerate().map(|(at, level)| if few(at, level) { 0 } else { health(*level, policy.spill) }).collect()
}

fn shares(health: &[u8]) -> Vec<u8> {
    let sum = health.iter().map(|health| u32::from(*health)).sum::<u32>().clamp(1, 100);
    let mut left = 100;
    let mut loads: Vec<u32> = health
        .iter()
        .map(|health| {
            let load = (u32::from(*health) * 100 / sum).min(left);
            left -= load;
            load
        })
        .collect();
    if let Some(first) = health.iter().position(|health| *health > 0) {
        loads[first] += left;
    }
    loads.into_iter().map(|load| load as u8).collect()
}

/// A level with somebody routable never rounds down to nobody.
fn health(level: Count, spill: u32) -> u8 {
    if level.total == 0 || level.routable == 0 {
        return 0;
    }
    (u64::from(spill) * 100 * u64::from(level.routable) / (u64::from(level.total) * 1_000)).clamp(1, 100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing;

    fn shares_at(counts: &[(u32, u32)], min_local: u32) -> Vec<u8> {
        let levels: Vec<Count> =
            counts.iter().map(|(routable, total)| Count { routable: *routable, total: *total }).collect();
        loads(&levels, &Locality { min_local, ..Locality::default() }, &[])
    }

    #[test]
    fn spill_is_proportional_and_not_a_cliff() {
        for (routable, expected) in
            [(100, [100, 0]), (72, [100, 0]), (71, [99, 1]), (50, [70, 30]), (25, [35, 65]), (0, [0, 100])]
        {
            assert_eq!(shares_at(&[(routable, 100), (10, 10)], 0), expected, "{routable} %");
        }
        assert_eq!(shares_at(&[(0, 5), (0, 5)], 0), [0, 0]);
        assert_eq!(shares_at(&[(3, 10), (2, 10)], 0), [60, 40]);
        assert_eq!(shares_at(&[(1, 6), (1, 6), (1, 6)], 0).iter().map(|l| u32::from(*l)).sum::<u32>(), 100);
        assert_eq!(shares_at(&[(1, 1_000)], 0), [100]);
    }

    #[test]
    fn a_level_below_min_local_is_left_unless_nobody_else_is_there() {
        assert_eq!(shares_at(&[(2, 2), (5, 5)], 3), [0, 100]);
        assert_eq!(shares_at(&[(3, 3), (5, 5)], 3), [100, 0]);
        assert_eq!(shares_at(&[(2, 2), (0, 5)], 3), [100, 0]);
    }

    #[test]
    fn the_level_is_the_longest_matching_prefix() {
        let place = Place::new([("region", "eu"), ("zone", "a")].into_iter().collect());
        let prefer: [Text; 2] = ["region".into(), "zone".into()];
        let level = |labels: &[(&str, &str)]| place.level(&prefer, &testing::instance("web", "i", 1, labels));
        assert_eq!(level(&[("region", "eu"), ("zone", "a")]), 0);
        assert_eq!(level(&[("region", "eu"), ("zone", "b")]), 1);
        assert_eq!(level(&[("region", "us"), ("zone", "a")]), 2);
        assert_eq!(level(&[("zone", "a")]), 2);
        assert_eq!(level(&[]), 2);
        let nowhere = Place::default();
        assert_eq!(nowhere.level(&prefer, &testing::instance("web", "i", 1, &[("region", "eu")])), 0);
    }
}
