//! What changed between two snapshots, for events. Costs what changed: shared services are skipped by pointer.

use std::sync::Arc;

use super::{Endpoint, ServiceSnapshot, Snapshot};
use crate::engine::label::Text;

/// One service's change. Ids are what people see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceChange {
    /// The service.
    pub service: Text,
    /// Instances (or addresses) that came.
    pub added: Vec<Text>,
    /// Those that went.
    pub removed: Vec<Text>,
    /// Those that stayed with another status, weight or label.
    pub changed: Vec<Text>,
}

/// The services that differ, in name order.
#[must_use]
pub fn diff(old: &Snapshot, new: &Snapshot) -> Vec<ServiceChange> {
    merge(old.services(), new.services(), |service| &*service.name)
        .filter_map(|pair| match pair {
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => None,
            (old, new) => Some(change(old.map(|s| &**s), new.map(|s| &**s))).filter(ServiceChange::is_one),
        })
        .collect()
}

impl ServiceChange {
    fn is_one(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty())
    }
}

fn change(old: Option<&ServiceSnapshot>, new: Option<&ServiceSnapshot>) -> ServiceChange {
    let service = new.or(old).map(|service| Arc::clone(&service.name)).unwrap_or_default();
    let mut change = ServiceChange { service, ..ServiceChange::default() };
    let (old, new) = (old.map_or(&[][..], |s| &s.endpoints), new.map_or(&[][..], |s| &s.endpoints));
    let id = |endpoint: &Endpoint| Arc::clone(&endpoint.instance.id);
    for pair in merge(old, new, |endpoint| (&endpoint.instance.identity, endpoint.instance.addr)) {
        match pair {
            (None, Some(new)) => change.added.push(id(new)),
            (Some(old), None) => change.removed.push(id(old)),
            (Some(old), Some(new)) if old.instance != new.instance || old.graced != new.graced => {
                change.changed.push(id(new));
            }
            _ => {}
        }
    }
    change
}

/// Pairs up two sorted lists by key.
fn merge<'a, T, K: Ord>(
    mut old: &'a [T],
    mut new: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
    std::iter::from_fn(move || {
        let order = match (old.first(), new.first()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => key(a).cmp(&key(b)),
        };
        let from_old = if order.is_le() { old.split_off_first() } else { None };
        let from_new = if order.is_ge() { new.split_off_first() } else { None };
        Some((from_old, from_new))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::instance::Status;
    use crate::engine::testing::{instance_with_status, service};

    fn web(states: &[(&str, Status)]) -> Arc<ServiceSnapshot> {
        service("web", states.iter().map(|(id, s)| Arc::new(instance_with_status("web", id, *s))).collect())
    }

    #[test]
    fn additions_removals_and_changes_are_told_apart() {
        use Status::{Critical, Passing};
        let api = service("api", Vec::new());
        let old = Snapshot::new([Arc::clone(&api), web(&[("a", Passing), ("b", Passing), ("c", Passing)])]);
        let new = Snapshot::new([api, web(&[("b", Critical), ("c", Passing), ("d", Passing)])]);
        let expected = ServiceChange {
            service: "web".into(),
            added: vec!["d".into()],
            removed: vec!["a".into()],
            changed: vec!["b".into()],
        };
        assert_eq!(diff(&old, &new), [expected]);
        assert_eq!(diff(&new, &new.clone()), []);
        assert_eq!(diff(&new, &new.without_service(&"web".into()))[0].removed.len(), 3);
    }
}
