//! A region lost and back: loads follow the table's own publications, as the publisher makes them.

use std::sync::Arc;

use super::*;
use crate::engine::instance::{Instance, Status};
use crate::engine::snapshot::LiveSet;
use crate::engine::testing::{instance, router};

const RULES: &str = "service: web\npools: {all: version exists}\nlocality: {prefer: [region], failback: 10s}\nrules: [{name: r, to: all}]\n";

struct World {
    table: Table,
    lives: LiveSet,
}

impl World {
    fn new(rules: &str) -> Self {
        let place = Place::new([("region", "eu")].into_iter().collect());
        let table = Table::build(1, Snapshot::default(), router(rules), place, Millis(0)).unwrap();
        let mut world = Self { table, lives: LiveSet::default() };
        world.eu(4, 4, 0);
        world
    }

    /// Of `named` instances at home so many are passing; four more are elsewhere.
    fn eu(&mut self, passing: usize, named: usize, now: u64) {
        let one = |region: &str, at: usize, status: Status| {
            let labels = [("version", "1"), ("region", region)];
            Arc::new(Instance { status, ..instance("web", &format!("{region}{at}"), 80, &labels) })
        };
        let home = (0..named).map(|at| one("eu", at, if at < passing { Status::Passing } else { Status::Critical }));
        let all = home.chain((0..4).map(|at| one("us", at, Status::Passing))).collect();
        let service = ServiceSnapshot::build("web".into(), 1, all, &mut self.lives, Millis(now));
        self.table = self.table.with_service(self.table.generation + 1, service, Millis(now)).0;
    }

    fn time(&mut self, now: u64) {
        self.table = self.table.with_time(self.table.generation + 1, Millis(now));
    }

    /// Percent of the traffic that stays at home.
    fn home(&self) -> u8 {
        self.table.pool(0, 0).levels.iter().find(|level| level.rank == 0).map_or(0, |level| level.load)
    }
}

#[test]
fn a_region_that_is_lost_and_back_returns_after_failback() {
    let mut world = World::new(RULES);
    assert_eq!((world.home(), world.table.due()), (100, None), "nothing waits at the start");
    for (passing, home) in [(3, 100), (2, 70), (1, 35), (0, 0)] {
        world.eu(passing, 4, 1_000);
        assert_eq!(world.home(), home, "a loss shows at once");
    }
    world.eu(4, 4, 5_000);
    assert_eq!((world.home(), world.table.due()), (0, Some(Millis(15_000))));
    world.time(14_999);
    assert_eq!(world.home(), 0);
    world.time(15_000);
    assert_eq!((world.home(), world.table.due()), (100, None));
}

#[test]
fn one_that_left_the_catalog_waits_too_and_new_rules_do_not_cut_it_short() {
    let mut world = World::new(RULES);
    world.eu(0, 0, 1_000);
    assert_eq!(world.home(), 0);
    world.eu(4, 4, 2_000);
    assert_eq!(world.home(), 0);
    let rules = router(&RULES.replace("name: r", "name: other"));
    world.table = world.table.with_router(9, rules, Millis(3_000)).unwrap();
    assert_eq!((world.home(), world.table.due()), (0, Some(Millis(12_000))));
    world.time(12_000);
    assert_eq!(world.home(), 100);
}

#[test]
fn a_region_that_flaps_stays_away() {
    let mut world = World::new(RULES);
    for second in 1..60 {
        world.eu(if second % 6 < 3 { 0 } else { 4 }, 4, second * 1_000);
        assert_eq!(world.home(), 0, "at {second} s");
    }
}

#[test]
fn without_failback_it_returns_at_once_and_ejection_has_no_part_in_it() {
    let rules = RULES.replace("10s", "0s").replace("rules:", "eject: {enforce: false}\nrules:");
    let mut world = World::new(&rules);
    world.eu(2, 4, 1_000);
    assert_eq!(world.home(), 70);
    world.eu(4, 4, 1_001);
    assert_eq!((world.home(), world.table.due()), (100, None));
}

#[test]
fn a_home_that_grows_is_not_taken_for_a_weak_one() {
    let mut world = World::new(RULES);
    world.eu(8, 8, 1_000);
    assert_eq!((world.home(), world.table.due()), (100, None));
}
