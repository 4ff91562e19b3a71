//! Behaviour of the keeper: E1, E2, E3.

use super::*;
use crate::catalog::watch::picture::sample;

const POLICY: HoldPolicy = HoldPolicy { hold_max: 60_000, hold_acl: 0, confirm_after: 2_000 };

fn answer(index: u64, ids: &[&str]) -> Answer {
    let groups = ids.iter().map(|id| (Text::from(*id), vec![sample("web", id)])).collect();
    Answer { index, groups, ..Answer::default() }
}

fn stale(mut answer: Answer) -> Answer {
    answer.evidence.consistent = false;
    answer
}

fn names(keeper: &Keeper) -> Vec<String> {
    let mut all: Vec<String> = keeper.groups().map(|(id, _)| id.to_string()).collect();
    all.sort();
    all
}

/// A keeper that has seen these instances at index 20.
fn knowing(ids: &[&str]) -> Keeper {
    let mut keeper = Keeper::default();
    keeper.judge(answer(20, ids), Millis(0), POLICY);
    keeper
}

#[test]
fn a_grown_index_on_an_unbroken_watch_removes_at_once() {
    let mut keeper = knowing(&["a", "b"]);
    let judged = keeper.judge(stale(answer(21, &["a"])), Millis(10), POLICY);
    assert_eq!((judged.removed.len(), judged.held), (1, None));
    let judged = keeper.judge(stale(answer(22, &[])), Millis(20), POLICY);
    assert_eq!(judged.removed.len(), 1, "the last instance goes at once too");
    assert!(keeper.is_empty());
}

#[test]
fn a_loss_at_the_same_index_is_a_lost_permission_and_held_for_ever() {
    let mut keeper = knowing(&["a", "b"]);
    let judged = keeper.judge(answer(20, &[]), Millis(10), POLICY);
    assert_eq!(judged.held, Some((2, Doubt::Permission)));
    assert!(!judged.changed || keeper.len() == 2);
    for hour in 1..100 {
        keeper.judge(answer(20, &[]), Millis(hour * 3_600_000), POLICY);
    }
    assert_eq!(names(&keeper), ["a", "b"]);
    assert_eq!(keeper.accept(), 2);
    assert!(keeper.is_empty());
}

#[test]
fn after_a_permission_returns_what_is_still_missing_is_an_ordinary_doubt() {
    let mut keeper = knowing(&["a", "b", "c", "d"]);
    keeper.judge(answer(20, &[]), Millis(10), POLICY);
    let judged = keeper.judge(answer(25, &["a", "b", "c"]), Millis(1_000), POLICY);
    assert_eq!(judged.returned, 3);
    assert_eq!(keeper.holding(), Some((1, Doubt::Broken)));
    keeper.judge(answer(25, &["a", "b", "c"]), Millis(3_000), POLICY);
    assert_eq!(names(&keeper), ["a", "b", "c"]);
}

#[test]
fn an_empty_answer_after_an_interruption_waits_for_the_whole_hold() {
    let mut keeper = knowing(&["a", "b"]);
    keeper.interrupted(Doubt::Broken, Millis(100));
    let judged = keeper.judge(answer(11, &[]), Millis(1_300), POLICY);
    assert_eq!(judged.held, Some((2, Doubt::Broken)));
    assert_eq!(keeper.next_reading(Millis(1_300), POLICY), Some(Millis(61_300)));
    keeper.judge(answer(11, &[]), Millis(61_299), POLICY);
    assert_eq!(keeper.len(), 2);
    let judged = keeper.judge(answer(11, &[]), Millis(61_300), POLICY);
    assert_eq!((judged.expired, keeper.len()), (2, 0));
}

#[test]
fn services_that_register_again_after_a_restart_do_not_confirm_the_others_loss() {
    let mut keeper = knowing(&["a", "b", "c"]);
    keeper.interrupted(Doubt::Broken, Millis(0));
    keeper.judge(answer(11, &[]), Millis(1_300), POLICY);
    keeper.judge(answer(12, &["a"]), Millis(1_500), POLICY);
    keeper.judge(answer(12, &["a"]), Millis(9_000), POLICY);
    assert_eq!(names(&keeper), ["a", "b", "c"], "two of three are not a small loss");
    keeper.judge(answer(13, &["a", "b"]), Millis(9_100), POLICY);
    assert_eq!(keeper.len(), 3);
    assert_eq!(keeper.next_reading(Millis(9_100), POLICY), Some(Millis(11_100)));
    let judged = keeper.judge(answer(13, &["a", "b"]), Millis(11_100), POLICY);
    assert_eq!((judged.confirmed, keeper.len()), (1, 2));
}

#[test]
fn a_stale_reading_confirms_nothing() {
    let mut keeper = knowing(&["a", "b", "c"]);
    keeper.interrupted(Doubt::Broken, Millis(0));
    keeper.judge(stale(answer(30, &["a", "b"])), Millis(100), POLICY);
    keeper.judge(stale(answer(30, &["a", "b"])), Millis(10_000), POLICY);
    assert_eq!(keeper.len(), 3);
    assert_eq!(keeper.next_reading(Millis(10_000), POLICY), Some(Millis(10_000)));
}

#[test]
fn another_interruption_restarts_the_hold_but_not_for_ever() {
    let mut keeper = knowing(&["a"]);
    keeper.interrupted(Doubt::Broken, Millis(0));
    keeper.judge(answer(11, &[]), Millis(0), POLICY);
    let mut now = 0;
    while keeper.len() == 1 {
        now += 30_000;
        keeper.interrupted(Doubt::Broken, Millis(now));
        keeper.judge(answer(11, &[]), Millis(now), POLICY);
        assert!(now <= 600_000, "held for ever without a word");
    }
    assert_eq!(now, 600_000);
}

#[test]
fn no_hold_time_means_held_until_accepted() {
    let mut keeper = knowing(&["a"]);
    let never = HoldPolicy { hold_max: 0, ..POLICY };
    keeper.interrupted(Doubt::Broken, Millis(0));
    keeper.judge(answer(11, &[]), Millis(0), never);
    keeper.judge(answer(11, &[]), Millis(u64::MAX / 2), never);
    assert_eq!(keeper.len(), 1);
}

#[test]
fn each_reason_to_doubt_is_named() {
    let check = |change: fn(&mut Answer), expected: Option<Doubt>| {
        let mut keeper = knowing(&["a", "b"]);
        let mut next = stale(answer(21, &["a"]));
        change(&mut next);
        assert_eq!(keeper.judge(next, Millis(10), POLICY).held.map(|(_, doubt)| doubt), expected);
    };
    check(|_| (), None);
    check(|a| a.index = 19, Some(Doubt::IndexFell));
    check(|a| a.index = 20, Some(Doubt::Permission));
    check(|a| a.evidence.filtered = true, Some(Doubt::Permission));
    check(|a| a.evidence.nothing_listed = true, Some(Doubt::Permission));
    check(|a| a.evidence.flawed = true, Some(Doubt::Flawed));
    check(|a| a.evidence.leader_known = false, Some(Doubt::NoLeader));
    check(
        |a| {
            a.groups.clear();
            a.evidence.leader_known = false;
            a.evidence.still_listed = true;
        },
        Some(Doubt::Permission),
    );
}

#[test]
fn an_empty_service_that_a_later_list_still_names_is_a_lost_permission() {
    let empty = |still_listed| {
        let mut answer = stale(answer(21, &[]));
        (answer.evidence.leader_known, answer.evidence.still_listed) = (false, still_listed);
        answer
    };
    let mut keeper = knowing(&["a", "b"]);
    assert_eq!(keeper.judge(empty(false), Millis(10), POLICY).held, Some((2, Doubt::NoLeader)));
    assert_eq!(keeper.judge(empty(true), Millis(20), POLICY).held, Some((2, Doubt::Permission)));
    keeper.judge(empty(false), Millis(3_600_000), POLICY);
    assert_eq!(names(&keeper), ["a", "b"]);

    let mut keeper = knowing(&["a", "b"]);
    keeper.judge(empty(false), Millis(10), POLICY);
    keeper.interrupted(Doubt::Broken, Millis(15));
    keeper.judge(empty(true), Millis(20), POLICY);
    assert_eq!(keeper.holding(), Some((2, Doubt::NoLeader)), "a broken watch is no such sign");
}

#[test]
fn a_copy_from_disk_is_kept_until_the_catalog_says_otherwise_for_long_enough() {
    let mut keeper = Keeper::default();
    assert!(keeper.warm(7, answer(7, &["a", "b", "c"]).groups));
    assert_eq!(keeper.len(), 3);
    let judged = keeper.judge(answer(40, &["a", "b"]), Millis(0), POLICY);
    assert_eq!(judged.held, Some((1, Doubt::Warm)));
    keeper.judge(answer(40, &["a", "b"]), Millis(2_000), POLICY);
    assert_eq!(names(&keeper), ["a", "b"]);
    assert!(!keeper.warm(7, answer(7, &["z"]).groups), "the catalog has answered");
}

#[test]
fn an_instance_that_cannot_be_used_for_now_stays_as_it_was() {
    let mut keeper = knowing(&["a", "b"]);
    let mut next = answer(21, &["a"]);
    next.kept.insert("b".into());
    next.kept.insert("never-seen".into());
    let judged = keeper.judge(next, Millis(10), POLICY);
    assert_eq!((judged.changed, names(&keeper)), (false, vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn an_equal_answer_changes_nothing_and_keeps_the_pointers() {
    let mut keeper = knowing(&["a"]);
    let before = keeper.groups().next().map(|(_, group)| Arc::clone(&group[0])).unwrap();
    assert!(!keeper.judge(answer(30, &["a"]), Millis(10), POLICY).changed);
    assert!(Arc::ptr_eq(&before, &keeper.groups().next().unwrap().1[0]));
}
