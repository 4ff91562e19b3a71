//! Last-instance grace (CATALOGS.md M6): an agent's restart makes all its checks critical for a second or two, and a
//! service must not be down for that.

use std::sync::Arc;

use super::ServiceSnapshot;
use crate::engine::instance::{Instance, Status};
use crate::engine::label::Text;

/// Identities that keep being routed to although `new` calls them critical, because nobody else is left.
///
/// Non-empty only when no instance of `new` may take traffic by its status and weight. Then it is everybody who was
/// passing in `old` (or under grace there already), is critical now, and is not ejected, drained or failing an active
/// check. The caller starts the clock (`last_instance_grace`, 2 s) with the first answer that is not empty, keeps that
/// deadline while answers are not empty, and uses [`ServiceSnapshot::without_grace`] when it is over.
#[must_use]
pub fn last_instance_grace(old: &ServiceSnapshot, new: &[Arc<Instance>]) -> Vec<Text> {
    if new.iter().any(|instance| instance.weight() > 0) {
        return Vec::new();
    }
    let was_passing = |identity: &Text| {
        old.endpoints.iter().any(|endpoint| {
            endpoint.instance.identity == *identity
                && endpoint.status() == Status::Passing
                && endpoint.weight() > 0
                && endpoint.live.available()
        })
    };
    new.iter()
        .filter(|instance| instance.status == Status::Critical && was_passing(&instance.identity))
        .map(|instance| Arc::clone(&instance.identity))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{instance_with_status, service};
    use crate::engine::time::Millis;

    fn named(states: &[(&str, Status)]) -> Vec<Arc<Instance>> {
        states.iter().map(|(id, status)| Arc::new(instance_with_status("web", id, *status))).collect()
    }

    fn graced(old: &[(&str, Status)], new: &[(&str, Status)]) -> Vec<String> {
        let old = service("web", named(old));
        last_instance_grace(&old, &named(new)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_ones_keep_traffic_and_nobody_else_does() {
        use Status::{Critical, Maintenance, Passing, Warning};
        let both = [("a", Passing), ("b", Passing)];
        assert_eq!(graced(&both, &[("a", Critical), ("b", Critical)]), ["a", "b"]);
        assert_eq!(graced(&both, &[("a", Critical), ("b", Warning)]), [""; 0]);
        assert_eq!(graced(&[("a", Passing), ("b", Critical)], &[("a", Critical), ("b", Critical)]), ["a"]);
        assert_eq!(graced(&both, &[("a", Maintenance)]), [""; 0]);
        assert_eq!(graced(&both, &[]), [""; 0]);
    }

    #[test]
    fn evidence_against_an_instance_outweighs_the_grace() {
        let old = service("web", named(&[("a", Status::Passing)]));
        old.endpoints[0].live.eject(Millis(0), 1_000);
        assert!(last_instance_grace(&old, &named(&[("a", Status::Critical)])).is_empty());
    }
}
