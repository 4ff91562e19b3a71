use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::engine::instance::{Instance, Status, Weights};
use crate::engine::snapshot::LiveSet;
use crate::engine::testing::{instance, service, table};

const RULES: &str = "
service: web
pools:
  stable: version == 1.2
  gray: version == 1.3
  alone: {select: version == 1.3, min: 30%}
rules:
  - name: testers
    when: header.x-user-group == test
    to: [gray, stable]
  - name: ramp
    split: {gray: 5%, stable: 95%}
  - name: last
    to: alone
";

fn web(versions: &[&str]) -> Arc<ServiceSnapshot> {
    let one =
        |(at, version): (usize, &&str)| Arc::new(instance("web", &format!("i{at:03}"), 80, &[("version", version)]));
    service("web", versions.iter().enumerate().map(one).collect())
}

/// The pool of a name with a rule's backing.
fn pool<'t>(table: &'t Table, name: &str, backed: bool) -> &'t Pool {
    let pools = &table.router.files[0].pools;
    let slot = pools.iter().position(|pool| &*pool.name == name && pool.backed == backed);
    let slot = slot.unwrap_or_else(|| panic!("no pool {name}, backed {backed}"));
    table.pool(0, slot as PoolSlot)
}

fn candidates(pool: &Pool) -> Vec<u32> {
    pool.levels.iter().flat_map(|level| &level.candidates).map(|candidate| candidate.endpoint).collect()
}

fn eject(table: &Table, endpoints: &[u32], at: u64) -> Table {
    let lives: Vec<_> = endpoints.iter().map(|i| Arc::clone(&table.endpoint(0, *i).live)).collect();
    for (n, live) in lives.iter().enumerate() {
        live.eject(Millis(at + n as u64), 30_000).expect("it was in");
    }
    table.with_health(table.generation + 1, &lives, Millis(at))
}

#[test]
fn pools_hold_their_members_and_count_the_routable() {
    let table = table(RULES, vec![web(&["1.2", "1.3", "1.2", "1.4"])]).unwrap();
    let stable = pool(&table, "stable", false);
    assert_eq!((&*stable.members, stable.routable, stable.min), (&[0, 2][..], 2, 1));
    assert_eq!(&*pool(&table, "gray", true).members, [1]);
    let any = table.pool(0, table.router.files[0].any());
    assert_eq!((any.members.len(), any.routable), (4, 4));
    assert_eq!(pool(&table, "alone", false).min, 1);
}

#[test]
fn a_service_that_the_catalog_lacks_has_empty_pools() {
    let table = table(RULES, Vec::new()).unwrap();
    assert!(table.endpoints(0).is_empty());
    for pool in &table.files[0].pools {
        assert_eq!((pool.members.len(), pool.routable, pool.levels.len()), (0, 0, 0));
    }
    let (table, errors) = table.with_service(2, web(&["1.2"]), Millis(1));
    assert!(errors.is_empty());
    assert_eq!(pool(&table, "stable", false).routable, 1);
    let table = table.without_service(3, &"web".into(), Millis(2));
    assert_eq!(pool(&table, "stable", false).routable, 0);
    assert!(table.snapshot.service("web").is_none());
}

#[test]
fn the_cap_keeps_the_latest_ejected_in_and_a_backed_pool_lets_all_go() {
    let table = table(RULES, vec![web(&["1.2", "1.2", "1.2", "1.2", "1.3"])]).unwrap();
    let table = eject(&table, &[3, 1, 2, 4], 10);
    let stable = pool(&table, "stable", false);
    assert_eq!(&*stable.ejected, [3, 1, 2], "longest first");
    assert_eq!(&*stable.refused, [2], "2 of 4 may go");
    assert_eq!(candidates(stable), [0, 2]);
    assert!(stable.levels[0].candidates[1].refused);
    let gray = pool(&table, "gray", true);
    assert_eq!((gray.routable, gray.refused.len(), gray.ejected.len()), (0, 0, 1));
    let alone = pool(&table, "alone", false);
    assert_eq!((alone.routable, alone.refused.len()), (1, 1), "the same instance stays where nothing backs it");
    let out: Vec<_> = table.left_out(0, 0).iter().map(|(at, _)| *at).collect();
    assert!(!out.contains(&0));
}

#[test]
fn a_refusal_is_new_once() {
    let first = table(RULES, vec![web(&["1.2", "1.2"])]).unwrap();
    let second = eject(&first, &[0], 10);
    assert_eq!(second.newly_refused(&first), [], "one of two may go");
    let third = eject(&second, &[1], 20);
    let slots: Vec<_> = third.newly_refused(&second).iter().map(|new| (new.slot, new.endpoint)).collect();
    let unbacked = |slot: &usize| third.router.files[0].pools[*slot].max_ejection_percent < 1_000_000;
    let expected: Vec<_> = (0..third.files[0].pools.len())
        .filter(unbacked)
        .filter(|slot| third.pool(0, *slot as u32).members.contains(&1))
        .map(|slot| (slot as u32, 1))
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(slots, expected);
    let fourth = third.with_health(9, &[Arc::clone(&third.endpoint(0, 1).live)], Millis(30));
    assert_eq!(fourth.newly_refused(&third), []);
    let (fifth, _) = third.with_service(10, web(&["1.2", "1.2"]), Millis(40));
    assert_eq!(fifth.newly_refused(&third), [], "fresh live states");
}

#[test]
fn with_health_touches_only_pools_that_hold_the_endpoint() {
    let before = table(RULES, vec![web(&["1.2", "1.2", "1.3"])]).unwrap();
    let after = eject(&before, &[2], 10);
    for (slot, spec) in before.router.files[0].pools.iter().enumerate() {
        let shared = Arc::ptr_eq(before.pool(0, slot as u32), after.pool(0, slot as u32));
        assert_eq!(shared, &*spec.name == "stable", "{}", spec.name);
    }
    assert!(Arc::ptr_eq(&before.router, &after.router));
}

#[test]
fn with_service_shares_every_other_part() {
    let rules = RULES.replace("service: web", "service: api");
    let api = service("api", vec![Arc::new(instance("api", "a", 80, &[("version", "1.2")]))]);
    let before = table(&rules, vec![Arc::clone(&api), web(&["1.2"])]).unwrap();
    let (after, _) = before.with_service(2, web(&["1.3"]), Millis(1));
    assert!(Arc::ptr_eq(&before.files[0], &after.files[0]));
    assert!(Arc::ptr_eq(&api, after.snapshot.service("api").unwrap()));
    assert_eq!(after.generation, 2);
}

#[test]
fn status_weight_drain_and_checks_decide_who_is_routable() {
    let mut all: Vec<Instance> =
        (0..6).map(|at| instance("web", &format!("i{at}"), 80, &[("version", "1.2")])).collect();
    all[1].status = Status::Warning;
    all[2].status = Status::Critical;
    all[3].weights = Weights { passing: 0, warning: 1 };
    all[4].status = Status::Maintenance;
    let web = service("web", all.into_iter().map(Arc::new).collect());
    web.endpoints[5].live.set_drained(true);
    let only_passing = RULES.replace("stable: version == 1.2", "stable: {select: version == 1.2, accept: [passing]}");
    let first = table(RULES, vec![Arc::clone(&web)]).unwrap();
    assert_eq!(candidates(pool(&first, "stable", false)), [0, 1]);
    let strict = table(&only_passing, vec![web]).unwrap();
    assert_eq!(candidates(pool(&strict, "stable", false)), [0]);
    let slot = strict.router.files[0].pools.iter().position(|p| &*p.name == "stable" && !p.backed).unwrap();
    let why: Vec<LeftOut> = strict.left_out(0, slot as u32).into_iter().map(|(_, why)| why).collect();
    assert_eq!(
        why,
        [
            LeftOut::Status { status: Status::Warning },
            LeftOut::Status { status: Status::Critical },
            LeftOut::Weight,
            LeftOut::Status { status: Status::Maintenance },
            LeftOut::Drained
        ]
    );
}

#[test]
fn grace_makes_a_critical_instance_routable_until_it_is_over() {
    let critical = Arc::new(Instance { status: Status::Critical, ..instance("web", "a", 80, &[("version", "1.2")]) });
    let (mut lives, grace) = (LiveSet::default(), ["a".into()].into());
    let web = ServiceSnapshot::build_with_grace("web".into(), 1, vec![critical], &grace, &mut lives, Millis(0));
    let graced = table(RULES, vec![Arc::clone(&web)]).unwrap();
    assert_eq!(pool(&graced, "stable", false).routable, 1);
    let (after, _) = graced.with_service(2, web.without_grace(), Millis(2_000));
    assert_eq!(pool(&after, "stable", false).routable, 0);
}

#[test]
fn levels_are_squeezed_and_share_by_health() {
    let rules = format!("{RULES}\nlocality: {{prefer: [region, zone]}}\n");
    let mut all: Vec<Instance> = Vec::new();
    for (at, (region, zone)) in [("eu", "a"), ("eu", "a"), ("us", "a"), ("us", "b")].into_iter().enumerate() {
        let labels = [("version", "1.2"), ("region", region), ("zone", zone)];
        all.push(instance("web", &format!("i{at}"), 80, &labels));
    }
    all[1].status = Status::Critical;
    let table = table(&rules, vec![service("web", all.into_iter().map(Arc::new).collect())]).unwrap();
    let levels: Vec<_> =
        pool(&table, "stable", false).levels.iter().map(|l| (l.rank, l.load, l.candidates.len(), l.total)).collect();
    assert_eq!(levels, [(0, 70, 1, 2), (2, 30, 2, 2)]);
}

const LANES: &str = "
service: web
lanes: {label: lane, base: [base]}
labels: {lane: [header.x-lane]}
pools:
  lane: lane == label.lane
  stable: version == 1.2
rules:
  - name: lanes
    to: [lane, stable]
";

#[test]
fn an_instance_of_a_lane_belongs_only_to_pools_that_ask_for_lanes() {
    let labels = [vec![], vec![("lane", "base")], vec![("lane", "x")], vec![("lane", "y")], vec![("lane", "y")]];
    let one = |(at, lane): (usize, &Vec<(&str, &str)>)| {
        let labels: Vec<_> = lane.iter().copied().chain([("version", "1.2")]).collect();
        Arc::new(instance("web", &format!("i{at}"), 80, &labels))
    };
    let web = service("web", labels.iter().enumerate().map(one).collect());
    let table = table(LANES, vec![web]).unwrap();
    let slot = |name: &str| table.router.files[0].pools.iter().position(|p| &*p.name == name).unwrap() as u32;
    assert_eq!(&*table.pool(0, slot("stable")).members, [0, 1]);
    let left_out = table.left_out(0, slot("stable"));
    assert_eq!(left_out[0], (2, LeftOut::Lane { label: "lane".into(), value: "x".into() }));
    assert_eq!(left_out.len(), 3);

    assert!(table.pool(0, slot("lane")).members.is_empty(), "without a value: an empty pool");
    let variant = |lane: &str| table.variant(0, slot("lane"), &[lane.as_bytes()]);
    let y = variant("y").expect("the catalog holds it");
    assert_eq!(&*table.pool(0, y).members, [3, 4]);
    assert_eq!((&*table.pool(0, y).name, &*table.pool(0, y).variant), ("lane", &["y".into()][..]));
    assert_eq!(table.files[0].compiled(y), slot("lane"));
    assert_eq!(variant("z"), None);
    assert_eq!(table.variant(0, slot("stable"), &[]), None);
    let ejected = eject(&table, &[3], 5);
    assert_eq!(ejected.pool(0, y).ejected.len(), 1, "variants follow health too");
}

#[test]
fn two_request_labels_are_resolved_together() {
    let rules = LANES.replace("{lane: [header.x-lane]}", "{lane: [header.x-lane], env: [header.x-env]}");
    let rules = rules.replace("lane == label.lane", "lane == label.lane and env == label.env and version exists");
    let one = |(at, (lane, env)): (usize, (&str, &str))| {
        Arc::new(instance("web", &format!("i{at}"), 80, &[("lane", lane), ("env", env), ("version", "1")]))
    };
    let all = [("x", "prod"), ("x", "pre"), ("y", "pre"), ("x", "pre")];
    let table = table(&rules, vec![service("web", all.into_iter().enumerate().map(one).collect())]).unwrap();
    let variant = table.variant(0, 0, &[b"x", b"pre"]).expect("held");
    assert_eq!(&*table.pool(0, variant).members, [1, 3]);
    assert_eq!(table.variant(0, 0, &[b"y", b"prod"]), None);
}

#[test]
fn too_many_values_of_a_request_label_keep_the_last_pools() {
    let lanes = |count: usize| {
        let one = |at: usize| Arc::new(instance("web", &format!("i{at}"), 80, &[("lane", &format!("l{at}"))]));
        service("web", (0..count).map(one).collect())
    };
    let first = table(LANES, vec![lanes(1_000)]).unwrap();
    let (second, errors) = first.with_service(2, lanes(1_001), Millis(1));
    let expected = TableError::TooManyVariants { service: "web".into(), pool: "lane".into(), count: 1_001 };
    assert_eq!(errors, std::slice::from_ref(&expected));
    assert!(Arc::ptr_eq(&first.files[0], &second.files[0]));
    assert_eq!(table(LANES, vec![lanes(1_001)]).unwrap_err(), expected);
}

proptest! {
    /// SEMANTICS.md, *Routable*, said once more and slowly; and no more are skipped than the cap allows.
    #[test]
    fn routable_is_what_the_definition_says(
        all in prop::collection::vec((select(&Status::ALL), 0u32..3, 0u8..8), 1..24)
    ) {
        let one = |(at, (status, weight, _)): (usize, &(Status, u32, u8))| {
            let weights = Weights { passing: *weight, warning: *weight / 2 };
            Arc::new(Instance { status: *status, weights, ..instance("web", &format!("i{at:03}"), 80, &[("version", "1.3")]) })
        };
        let web = service("web", all.iter().enumerate().map(one).collect());
        for (endpoint, (_, _, state)) in web.endpoints.iter().zip(&all) {
            match state {
                0..=2 => assert!(endpoint.live.eject(Millis(u64::from(*state)), 1_000).is_some()),
                3 => assert!(endpoint.live.set_drained(true)),
                4 => assert!(endpoint.live.set_awaits_check(true)),
                5 => assert!(endpoint.live.distrust(Millis(9)).is_some()),
                _ => {}
            }
        }
        let eligible: Vec<usize> = (0..all.len()).filter(|at| {
            let (status, weight, state) = all[*at];
            let weight = match status { Status::Passing => weight, Status::Warning => weight / 2, _ => 0 };
            weight > 0 && state != 3 && state != 4
        }).collect();
        let out = |at: &&usize| matches!(all[**at].2, 0..=2 | 5);
        let ejected = eligible.iter().filter(out).count();
        let table = table(RULES, vec![web]).unwrap();

        let backed = pool(&table, "gray", true);
        let expected: Vec<u32> = eligible.iter().filter(|at| !out(at)).map(|at| *at as u32).collect();
        prop_assert_eq!(candidates(backed), expected);
        prop_assert_eq!(backed.ejected.len(), ejected);

        let own = pool(&table, "alone", false);
        let allowed = (eligible.len() / 2).max(1).min(eligible.len().saturating_sub(1));
        prop_assert_eq!(own.routable as usize, eligible.len() - ejected.min(allowed));
        prop_assert_eq!(own.refused.len(), ejected.saturating_sub(allowed));
        for level in &own.levels {
            for candidate in &level.candidates {
                prop_assert!(candidate.weight > 0 && eligible.contains(&(candidate.endpoint as usize)));
                prop_assert_eq!(candidate.refused, own.refused.contains(&candidate.endpoint));
            }
        }
    }
}
