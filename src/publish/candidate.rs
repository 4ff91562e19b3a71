//! The shadow rules' table: it follows every publication of the live one, so that both decide over the same instances.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::engine::label::Text;
use crate::engine::route::Router;
use crate::engine::snapshot::ServiceSnapshot;
use crate::engine::table::{Table, TableError};
use crate::engine::time::Millis;
use crate::observe::access_log::ReadFields;
use crate::observe::shadow::{Candidate, Figures, Slot};

/// New shadow rules, already compiled. Answered once they are beside the table, or with why they cannot.
#[derive(Debug)]
pub struct NewCandidate {
    /// As used.
    pub router: Arc<Router>,
    /// Gets the outcome.
    pub done: oneshot::Sender<Result<(), TableError>>,
}

/// Keeps the candidate beside the table. The publisher is its only writer.
#[derive(Debug, Default)]
pub struct Beside {
    slot: Slot,
}

impl Beside {
    /// Where it is read.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Arc::clone(&self.slot)
    }

    /// Other shadow rules. The error keeps those before.
    ///
    /// # Errors
    /// The rules' pools cannot be resolved.
    pub fn replace(&self, live: &Table, router: Arc<Router>, now: Millis) -> Result<(), TableError> {
        let rules = Arc::clone(&router);
        let table = Arc::new(live.with_router(live.generation, router, now)?);
        let (fields, figures) = (fields(live, &table), Arc::default());
        self.slot.store(Some(Arc::new(Candidate { live: live.generation, rules, table, figures, fields })));
        Ok(())
    }

    /// The live table is about to become another one: services that changed there are resolved anew here, too. Under
    /// other rules (`same_rules` is false) counting begins anew.
    /// What could not be resolved any more keeps its pools; those errors are told.
    #[must_use]
    pub fn follow(&self, before: &Table, after: &Table, same_rules: bool, now: Millis) -> Vec<TableError> {
        let Some(last) = self.slot.load_full() else { return Vec::new() };
        let (changed, gone) = differences(before, after, &last.table);
        let (table, errors) = match (changed.is_empty(), gone.is_empty()) {
            (true, true) => (Arc::clone(&last.table), Vec::new()),
            _ => {
                let (table, errors) = last.table.with_services(after.generation, changed, &gone, now);
                (Arc::new(table), errors)
            }
        };
        let figures = if same_rules { Arc::clone(&last.figures) } else { Arc::new(Figures::default()) };
        let same_files = Arc::ptr_eq(&before.router, &after.router) && Arc::ptr_eq(&last.table.router, &table.router);
        let fields = if same_files { Arc::clone(&last.fields) } else { fields(after, &table) };
        let rules = Arc::clone(&last.rules);
        self.slot.store(Some(Arc::new(Candidate { live: after.generation, rules, table, figures, fields })));
        errors
    }
}

fn fields(live: &Table, candidate: &Table) -> Arc<ReadFields> {
    let files = live.router.files.iter().chain(&candidate.router.files);
    Arc::new(ReadFields::of_files(files.map(|file| &*file.ruleset)))
}

/// Services whose instances, or whose pools under the live rules (their health), are not what they were; and services
/// that are gone.
fn differences(before: &Table, after: &Table, candidate: &Table) -> (Vec<Arc<ServiceSnapshot>>, Vec<Text>) {
    let mut names: BTreeSet<&Text> = BTreeSet::new();
    let same_rules = Arc::ptr_eq(&before.router, &after.router);
    for (at, file) in after.router.files.iter().enumerate() {
        if !same_rules || !Arc::ptr_eq(&before.files[at], &after.files[at]) {
            names.insert(&file.service);
        }
    }
    for service in after.snapshot.services() {
        let known = candidate.snapshot.service(&service.name);
        if !known.is_some_and(|known| Arc::ptr_eq(known, service)) {
            names.insert(&service.name);
        }
    }
    let changed = names.into_iter().filter_map(|name| after.snapshot.service(name)).map(Arc::clone).collect();
    let left = candidate.snapshot.services().iter().map(|service| &service.name);
    let gone = left.filter(|name| after.snapshot.service(name).is_none()).map(Arc::clone).collect();
    (changed, gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{instance, router, service, table};

    const LIVE: &str = "service: web\npools: {old: version == 1}\nrules: [{name: all, to: old}]\n";
    const SHADOW: &str = "service: web\npools: {new: version == 2}\nrules: [{name: all, to: new}]\n";

    #[test]
    fn the_candidate_follows_instances_health_and_rules() {
        let two = |id: &str| Arc::new(instance("web", id, 2, &[("version", "2")]));
        let first = table(LIVE, vec![service("web", vec![two("a")])]).unwrap();
        let beside = Beside::default();
        assert!(
            beside.follow(&first, &first, true, Millis(1)).is_empty(),
            "without shadow rules there is nothing to do"
        );
        beside.replace(&first, router(SHADOW), Millis(1)).unwrap();
        let routable = || {
            let candidate = beside.slot().load_full().unwrap();
            (candidate.live, candidate.table.pool(0, 0).routable)
        };
        assert_eq!(routable(), (1, 1));

        let (second, _) = first.with_service(2, service("web", vec![two("a"), two("b")]), Millis(2));
        let _ = beside.follow(&first, &second, true, Millis(2));
        assert_eq!(routable(), (2, 2));

        let live = Arc::clone(&second.snapshot.services()[0].endpoints[0].live);
        live.eject(Millis(3), 60_000);
        let third = second.with_health(3, &[live], Millis(3));
        let _ = beside.follow(&second, &third, true, Millis(3));
        assert_eq!(routable(), (3, 1), "an ejected instance is out of the shadow's pool, too");

        let counted = Arc::clone(&beside.slot().load_full().unwrap().figures);
        let fourth = third.with_router(4, router(LIVE), Millis(4)).unwrap();
        let _ = beside.follow(&third, &fourth, false, Millis(4));
        assert!(!Arc::ptr_eq(&counted, &beside.slot().load_full().unwrap().figures), "other live rules: counted anew");
        let fifth = fourth.without_service(5, &"web".into(), Millis(5));
        let _ = beside.follow(&fourth, &fifth, true, Millis(5));
        assert_eq!(routable(), (5, 0));
    }
}
