//! The order of resort, retries, backing.

use super::*;
use crate::engine::policy::{Panic, WHOLE};

fn list(to: &[&str]) -> RuleFile {
    RuleFile { rules: vec![rule("r", "", to)], ..web() }
}

/// The pools in the order in which they are come to when each proves empty, then what ends it.
fn walked(table: &Fake, request: &Request, draw: u64) -> Vec<String> {
    let decision = table.decide(request, draw);
    let file = &table.router.files[0];
    let mut outcome = decision.outcome;
    let mut seen = Vec::new();
    loop {
        seen.push(table.shown(Some(file), &outcome));
        let Outcome::Pool(choice) = outcome else { return seen };
        seen.last_mut().unwrap().push_str(&format!(" {:?}", choice.step));
        outcome = after_empty(table, &decision, choice);
    }
}

#[test]
fn pools_with_enough_come_before_pools_with_somebody() {
    let table = fake(vec![list(&["gray", "stable"])]).count("gray", 4, 1, 2);
    assert_eq!(
        walked(&table, &Request::get("h/"), 1),
        ["stable Preferred", "gray AtLeastOne", "503 no_routable_instance"]
    );
    let table = table.count("stable", 4, 0, 1);
    assert_eq!(walked(&table, &Request::get("h/"), 1), ["gray AtLeastOne", "503 no_routable_instance"]);
}

#[test]
fn then_panic_then_the_rules_else_then_the_files() {
    let mut file = list(&["gray", "stable"]);
    file.pools[0].panic = Some(Panic::Any);
    file.pools[1].panic = Some(Panic::Any);
    file.rules[0].fallback = or_else(Else::Any);
    file.fallback = or_else(Else::Status(502));
    let table = fake(vec![file.clone()]).count("gray", 2, 0, 1).count("stable", 2, 0, 1);
    assert_eq!(
        walked(&table, &Request::get("h/"), 1),
        ["stable Panic", "any RuleElse", "502 no_routable_instance"],
        "a backed pool never panics"
    );
    let table = table.count("any", 2, 0, 1).count("stable", 0, 0, 1);
    assert_eq!(walked(&table, &Request::get("h/"), 1), ["502 no_routable_instance"]);
    file.pools[1].panic = Some(Panic::Fail);
    let table = fake(vec![file]).count("gray", 2, 0, 1).count("stable", 2, 0, 1);
    assert_eq!(walked(&table, &Request::get("h/"), 1), ["503 no_routable_instance"], "`fail` ends it");
}

#[test]
fn a_retry_stays_within_the_list() {
    let mut file = list(&["gray", "stable", "other"]);
    file.rules[0].fallback = or_else(Else::Any);
    let table = fake(vec![file]).count("stable", 1, 0, 1);
    let decision = table.decide(&Request::get("h/"), 1);
    let Outcome::Pool(first) = decision.outcome else { panic!("{decision:?}") };
    let second = next_choice(&table, &decision, first).expect("another pool");
    assert_eq!(&**table.router.files[0].pool_name(second.pool), "other");
    assert_eq!(next_choice(&table, &decision, second), None);
    let passed: Vec<u32> = reached(&table, &decision, Some(second)).collect();
    assert_eq!(passed, [0, 1, 2], "the empty pool is reached too");
    assert_eq!(reached(&table, &decision, Some(first)).collect::<Vec<_>>(), [0]);
}

#[test]
fn backed_is_who_has_somebody_behind_it() {
    let mut file = list(&["gray", "stable"]);
    file.rules.push(split("s", &[("gray", 5), ("stable,other", 95)], &[]));
    let table = fake(vec![file]);
    let file = &table.router.files[0];
    let backed = |rule: usize| -> Vec<(String, bool, u32, u32)> {
        let slots = match &file.rules[rule].action {
            Action::To(list) => list.clone(),
            Action::Split(split) => split.arms.iter().flat_map(|arm| arm.to.clone()).collect(),
            _ => Vec::new(),
        };
        let pools = slots.iter().map(|slot| &file.pools[*slot as usize]);
        pools.map(|pool| (pool.name.to_string(), pool.backed, pool.max_ejection_percent, pool.min_routable)).collect()
    };
    assert_eq!(backed(0), [("gray".into(), true, WHOLE, 0), ("stable".into(), false, WHOLE / 2, 1)]);
    assert_eq!(
        backed(1),
        [("gray".into(), true, WHOLE, 0), ("stable".into(), true, WHOLE, 0), ("other".into(), false, WHOLE / 2, 1)]
    );
    assert_eq!(file.pools.len(), 5, "uses that are alike share a slot, and `any` is the last");
    assert_eq!(&*file.pools[file.any() as usize].name, "any");
}
