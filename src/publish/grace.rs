//! The clocks of last-instance graces (who is graced is the engine's to say).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::label::Text;

/// When the grace of each service ends.
#[derive(Debug)]
pub struct Graces {
    length: Duration,
    ends: BTreeMap<Text, Instant>,
}

impl Graces {
    /// Graces of this length; zero turns them off.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self { length, ends: BTreeMap::new() }
    }

    /// Whether the service may be graced now. The clock starts with the first answer that asks for it, and keeps its
    /// time while answers do; an answer that needs none stops it.
    pub fn grant(&mut self, service: &Text, needed: bool, now: Instant) -> bool {
        if !needed || self.length.is_zero() {
            self.ends.remove(service);
            return false;
        }
        let ends = *self.ends.entry(service.clone()).or_insert(now + self.length);
        now < ends
    }

    /// When the next grace is over.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.ends.values().min().copied()
    }

    /// Takes the services whose grace is over.
    pub fn over(&mut self, now: Instant) -> Vec<Text> {
        let over: Vec<Text> = self.ends.iter().filter(|(_, ends)| **ends <= now).map(|(s, _)| s.clone()).collect();
        for service in &over {
            self.ends.remove(service);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_runs_from_the_first_answer_that_needs_it_and_not_longer() {
        let mut graces = Graces::new(Duration::from_secs(2));
        let (web, start) = (Text::from("web"), Instant::now());
        assert!(graces.grant(&web, true, start));
        assert!(graces.grant(&web, true, start + Duration::from_secs(1)));
        assert_eq!(graces.next(), Some(start + Duration::from_secs(2)));
        assert!(graces.over(start + Duration::from_secs(1)).is_empty());
        assert_eq!(graces.over(start + Duration::from_secs(2)), std::slice::from_ref(&web));
        assert_eq!(graces.next(), None);
    }

    #[test]
    fn an_answer_that_needs_none_stops_the_clock() {
        let mut graces = Graces::new(Duration::from_secs(2));
        let (web, start) = (Text::from("web"), Instant::now());
        assert!(graces.grant(&web, true, start));
        assert!(!graces.grant(&web, false, start));
        assert_eq!(graces.next(), None);
        assert!(!Graces::new(Duration::ZERO).grant(&web, true, start));
    }
}
