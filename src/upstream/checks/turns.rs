//! Whose turn it is among the checks whose time has come. Pure.
//!
//! There are only so many places, and an instance that does not answer holds one until its time is over. The next place
//! goes to the service with the fewest checks under way, of several to the one whose last turn was longest ago; within
//! a service to the endpoint that has been due for longest. So ten thousand instances that are gone hold up each other and
//! nobody else (max-min fairness, as in Demers, Keshav, Shenker: "Analysis and Simulation of a Fair Queueing
//! Algorithm", 1989).

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::engine::label::Text;
use crate::engine::time::Millis;

/// A check that is due: since when, and the live state's id.
pub(super) type Due = (Millis, u64);

/// The checks that wait for a place, and how many of each service have one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    services: HashMap<Text, Share>,
    /// The services with somebody waiting, the next one first.
    order: BTreeSet<Rank>,
    /// Turns so far.
    turn: u64,
}

/// Checks under way, the number of the last turn, the service.
type Rank = (usize, u64, Text);

#[derive(Debug)]
struct Share {
    running: usize,
    last: u64,
    waiting: VecDeque<Due>,
}

impl Turns {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// One more waits. Those of a service come in the order of their moments.
    pub(super) fn wait(&mut self, service: &Text, due: Due) {
        // Who comes anew is behind those that wait already.
        let new = Share { running: 0, last: self.turn, waiting: VecDeque::new() };
        let share = self.services.entry(Text::clone(service)).or_insert(new);
        share.waiting.push_back(due);
        if share.waiting.len() == 1 {
            self.order.insert((share.running, share.last, Text::clone(service)));
        }
    }

    /// Takes the next one that is still wanted; its service has one more under way until [`Turns::ended`].
    pub(super) fn next(&mut self, mut is_wanted: impl FnMut(Due) -> bool) -> Option<Due> {
        while let Some((running, _, service)) = self.order.pop_first() {
            let share = self.services.get_mut(&service)?;
            let found = std::iter::from_fn(|| share.waiting.pop_front()).find(|due| is_wanted(*due));
            if found.is_some() {
                self.turn += 1;
                (share.running, share.last) = (running + 1, self.turn);
            }
            self.settle(&service);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// A check of this service has ended.
    pub(super) fn ended(&mut self, service: &Text) {
        let Some(share) = self.services.get_mut(service) else { return };
        self.order.remove(&(share.running, share.last, Text::clone(service)));
        share.running = share.running.saturating_sub(1);
        self.settle(service);
    }

    /// Puts a service that is not in the order back into it, if somebody waits; forgets it if there is nothing to know.
    fn settle(&mut self, service: &Text) {
        let Some(share) = self.services.get(service) else { return };
        if !share.waiting.is_empty() {
            self.order.insert((share.running, share.last, Text::clone(service)));
        } else if share.running == 0 {
            self.services.remove(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(turns: &mut Turns, most: usize) -> Vec<u64> {
        std::iter::from_fn(|| turns.next(|_| true)).take(most).map(|(_, id)| id).collect()
    }

    #[test]
    fn services_take_turns_and_within_one_the_longest_due_is_first() {
        let (big, small) = (Text::from("big"), Text::from("small"));
        let mut turns = Turns::default();
        (1..=4).for_each(|id| turns.wait(&big, (Millis(id), id)));
        (11..=12).for_each(|id| turns.wait(&small, (Millis(id), id)));
        assert_eq!(all(&mut turns, 9), [1, 11, 2, 12, 3, 4]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_has_fewer_under_way_is_first_until_its_checks_end() {
        let (big, small) = (Text::from("big"), Text::from("small"));
        let mut turns = Turns::default();
        (1..=9).for_each(|id| turns.wait(&big, (Millis(id), id)));
        assert_eq!(all(&mut turns, 3), [1, 2, 3]);
        (11..=13).for_each(|id| turns.wait(&small, (Millis(id), id)));
        assert_eq!(all(&mut turns, 3), [11, 12, 13], "three against three only now");
        turns.ended(&big);
        assert_eq!(all(&mut turns, 1), [4]);
    }

    #[test]
    fn one_that_is_not_wanted_any_more_takes_no_place_and_nothing_is_kept() {
        let service = Text::from("web");
        let mut turns = Turns::default();
        (1..=3).for_each(|id| turns.wait(&service, (Millis(0), id)));
        assert_eq!(turns.next(|(_, id)| id == 3), Some((Millis(0), 3)));
        assert_eq!(turns.next(|_| true), None);
        turns.ended(&service);
        turns.ended(&service);
        assert!(turns.services.is_empty() && turns.order.is_empty());
    }
}
