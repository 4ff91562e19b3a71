//! The publisher's book of live states: which endpoint has which, and who left when.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::live::Live;
use crate::engine::instance::{Instance, Status};
use crate::engine::label::Text;
use crate::engine::time::Millis;

/// How long the live state of an instance is kept after it left the catalog, in milliseconds.
pub const KEPT_AFTER_LEAVING: u64 = 300_000;

/// The label whose change means that another program runs at the same address.
const VERSION: &str = "version";

/// Live states by service and identity. One writer: the publisher.
#[derive(Debug, Default)]
pub struct LiveSet {
    next_id: u64,
    /// Counts calls of `attach` and `leave`, so that an entry not seen in one is known to be absent.
    pass: u64,
    services: FxHashMap<Text, FxHashMap<Text, SmallVec<[Entry; 1]>>>,
    /// Services whose new endpoints wait for their first passing check.
    hold_new: FxHashSet<Text>,
}

#[derive(Debug)]
struct Entry {
    addr: SocketAddr,
    version: Option<Text>,
    live: Arc<Live>,
    /// The pass that last named it.
    seen: u64,
    /// `None` while the catalog names it.
    left: Option<Millis>,
}

impl LiveSet {
    /// The live states of a service's whole state, in its order. The instances are sorted by identity.
    ///
    /// A known identity at an address where it was not before, while none of its former addresses is named any more,
    /// is probing; so is one whose `version` label changed in place. An identity that is new altogether is healthy. Who
    /// is there when the service is seen for the first time does not start slowly.
    pub fn attach(&mut self, service: &Text, instances: &[Arc<Instance>], now: Millis) -> Vec<Arc<Live>> {
        self.pass += 1;
        let hold = self.hold_new.contains(service);
        let first_seen = !self.services.contains_key(service);
        let known = self.services.entry(Arc::clone(service)).or_default();
        let mut lives = Vec::with_capacity(instances.len());
        for group in instances.chunk_by(|a, b| a.identity == b.identity) {
            let entries = known.entry(Arc::clone(&group[0].identity)).or_default();
            let stays = |entry: &Entry| group.iter().any(|instance| instance.addr == entry.addr);
            let moved = !entries.is_empty() && !entries.iter().any(stays);
            for instance in group {
                let version = instance.labels.value(VERSION);
                if let Some(entry) = entries.iter_mut().find(|entry| entry.addr == instance.addr) {
                    (entry.seen, entry.left) = (self.pass, None);
                    if entry.version.as_deref() != version {
                        entry.version = version.map(Text::from);
                        entry.live.distrust(now);
                    }
                    lives.push(Arc::clone(&entry.live));
                    continue;
                }
                self.next_id += 1;
                let live = Arc::new(Live::of_service(self.next_id, Arc::clone(service), moved, now));
                live.set_awaits_check(hold);
                if first_seen && matches!(instance.status, Status::Passing | Status::Warning) {
                    live.set_established();
                }
                lives.push(Arc::clone(&live));
                let version = version.map(Text::from);
                entries.push(Entry { addr: instance.addr, version, live, seen: self.pass, left: None });
            }
        }
        note_leaving(known, self.pass, now);
        lives
    }

    /// The catalog does not name the service any more.
    pub fn leave(&mut self, service: &Text, now: Millis) {
        self.pass += 1;
        if let Some(known) = self.services.get_mut(service) {
            note_leaving(known, self.pass, now);
        }
    }

    /// Forgets whoever left more than five minutes ago.
    pub fn sweep(&mut self, now: Millis) {
        self.services.retain(|_, known| {
            known.retain(|_, entries| {
                entries.retain(|entry| entry.left.is_none_or(|left| now.since(left) < KEPT_AFTER_LEAVING));
                !entries.is_empty()
            });
            !known.is_empty()
        });
    }

    /// Whether endpoints of this service wait for their first passing check (`check: {hold_new: true}`). Turning it off
    /// releases those that wait; turning it on touches new ones only.
    pub fn set_hold_new(&mut self, service: &Text, hold: bool) {
        if hold {
            self.hold_new.insert(Arc::clone(service));
        } else if self.hold_new.remove(service) {
            for entry in self.services.get(service).into_iter().flat_map(FxHashMap::values).flatten() {
                entry.live.set_awaits_check(false);
            }
        }
    }

    /// How many live states are kept, those of instances that left included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.values().flat_map(FxHashMap::values).map(SmallVec::len).sum()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whoever was not seen in this pass left now, unless it left before.
fn note_leaving(known: &mut FxHashMap<Text, SmallVec<[Entry; 1]>>, pass: u64, now: Millis) {
    for entry in known.values_mut().flatten().filter(|entry| entry.seen != pass) {
        entry.left = entry.left.or(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::health::State;
    use crate::engine::testing;

    fn attach(set: &mut LiveSet, port: u16, version: &str, now: u64) -> Arc<Live> {
        let mut instance = testing::instance("web", "a", port, &[("version", version)]);
        instance.identity = "a".into();
        set.attach(&"web".into(), &[Arc::new(instance)], Millis(now)).remove(0)
    }

    #[test]
    fn live_state_survives_rebuilds_and_five_minutes_of_absence() {
        let mut set = LiveSet::default();
        let first = attach(&mut set, 80, "1", 0);
        assert_eq!(attach(&mut set, 80, "1", 5).id, first.id);
        set.leave(&"web".into(), Millis(10));
        set.sweep(Millis(9 + KEPT_AFTER_LEAVING));
        assert_eq!(attach(&mut set, 80, "1", 9 + KEPT_AFTER_LEAVING).id, first.id);
        set.sweep(Millis(9 * KEPT_AFTER_LEAVING));
        assert_eq!(set.len(), 1, "it came back, so it is not swept");
        set.leave(&"web".into(), Millis(10));
        set.sweep(Millis(10 + KEPT_AFTER_LEAVING));
        assert!(set.is_empty());
    }

    #[test]
    fn a_changed_address_or_version_must_prove_itself() {
        let mut set = LiveSet::default();
        let first = attach(&mut set, 80, "1", 0);
        assert!(matches!(first.state(), State::Healthy { .. }));
        let moved = attach(&mut set, 81, "1", 1);
        assert_ne!(moved.id, first.id);
        assert!(matches!(moved.state(), State::Probing { .. }));
        moved.readmit(Millis(2));
        let same = attach(&mut set, 81, "2", 3);
        assert_eq!(same.id, moved.id);
        assert!(matches!(same.state(), State::Probing { .. }));
    }

    #[test]
    fn a_further_address_of_a_named_instance_is_new_and_not_moved() {
        let mut set = LiveSet::default();
        attach(&mut set, 80, "1", 0);
        let both: Vec<Arc<Instance>> = [80, 81]
            .map(|port| {
                Arc::new(Instance { identity: "a".into(), ..testing::instance("web", "a", port, &[("version", "1")]) })
            })
            .to_vec();
        let lives = set.attach(&"web".into(), &both, Millis(1));
        assert!(lives.iter().all(|live| live.available()));
    }

    #[test]
    fn new_endpoints_of_a_holding_service_wait_for_their_check() {
        let mut set = LiveSet::default();
        let old = attach(&mut set, 80, "1", 0);
        set.set_hold_new(&"web".into(), true);
        assert!(attach(&mut set, 80, "1", 1).available());
        let instance = Arc::new(testing::instance("web", "b", 90, &[]));
        let new = set.attach(&"web".into(), &[instance], Millis(2)).remove(0);
        assert!(!new.available() && new.awaits_check());
        set.set_hold_new(&"web".into(), false);
        assert!(new.available() && old.available());
    }
}
