use std::sync::Barrier;
use std::thread;

use super::*;
use crate::engine::health::check::{Failure, Verdict};
use crate::engine::policy::Check;

fn once(live: &Live, evidence: Evidence, now: u64) -> Option<Transition> {
    live.begin();
    let transition = live.record(evidence, Millis(now), &Eject::default(), Draw(7));
    live.end();
    transition
}

fn ejected(live: &Live) -> u64 {
    match live.state() {
        State::Ejected { until } => until.0,
        other => panic!("ejected, not {other:?}"),
    }
}

fn check() -> Check {
    Check::new(Check::CONNECTS)
}

#[test]
fn in_flight_and_finished_requests_are_counted_apart() {
    let live = Live::new(1);
    (0..3).for_each(|_| live.begin());
    assert_eq!((live.in_flight(), live.finished()), (3, 0));
    (0..3).for_each(|_| live.end());
    assert_eq!((live.in_flight(), live.finished()), (0, 3));
}

#[test]
fn five_failures_eject_and_one_probe_readmits() {
    let live = Live::new(1);
    for _ in 0..4 {
        assert_eq!(once(&live, Evidence::Connect, 10), None);
    }
    assert!(live.available());
    let transition = once(&live, Evidence::Connect, 10).expect("the fifth ejects");
    assert_eq!(transition.reason, Reason::Consecutive5xx { count: 5, last: Evidence::Connect });
    assert!(!live.available() && live.available_but_for_ejection());
    let until = ejected(&live);
    assert_eq!(once(&live, Evidence::Success, until - 1), None, "its time is not over");
    assert!(!live.take_probe_permit(Millis(until - 1), 1_000));
    assert!(live.take_probe_permit(Millis(until), 1_000));
    assert!(!live.take_probe_permit(Millis(until + 999), 1_000), "one permit only");
    assert!(!live.available(), "probing is not routable");
    assert!(live.take_probe_permit(Millis(until + 1_000), 1_000), "the permit lapsed");
    assert_eq!(once(&live, Evidence::Success, until + 1_001).expect("readmitted").kind, Kind::Readmitted);
    assert!(live.available());
}

#[test]
fn a_success_rate_below_the_bound_ejects_with_its_numbers() {
    let live = Live::new(1);
    let outcomes = [503, 200, 503, 503, 200, 503, 503];
    let transitions: Vec<_> = outcomes.iter().map(|s| once(&live, Evidence::of_status(*s), 5_000)).collect();
    assert_eq!(transitions[..5], [None, None, None, None, None].map(|x: Option<Transition>| x));
    let reason = transitions[5].clone().expect("2 of 6 succeeded").reason;
    assert_eq!(reason, Reason::SuccessRate { failed: 4, requests: 6, last: Evidence::Status(503) });
    assert_eq!(transitions[6], None);
}

#[test]
fn successes_before_the_failures_count_in_the_window() {
    let live = Live::new(1);
    for at in 0..100u64 {
        once(&live, Evidence::Success, at * 50);
    }
    for at in 0..4 {
        assert_eq!(once(&live, Evidence::of_status(429), 5_000 + at), None, "4 of 104");
    }
    assert_eq!(live.recent(Millis(5_004), 10_000), Tally { requests: 104, failed: 4 });
    for at in 0..5 {
        once(&live, Evidence::of_status(429), 60_000 + at);
    }
    assert!(!live.available(), "5 of 5 in the window");
}

#[test]
fn of_many_threads_one_wins_the_ejection_and_no_failure_is_lost() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let policy = Eject { consecutive_5xx: (THREADS * EACH) as u32, success_rate: 0, ..Eject::default() };
    for _ in 0..20 {
        let (live, barrier) = (Live::new(1), Barrier::new(THREADS));
        let won: usize = thread::scope(|scope| {
            let run = || {
                barrier.wait();
                (0..EACH).filter_map(|_| live.record(Evidence::Reset, Millis(1), &policy, Draw(1))).count()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(won, 1, "the last failure reaches the threshold, exactly once");
        assert!(!live.available());
    }
}

#[test]
fn of_many_threads_one_takes_the_permit() {
    for _ in 0..50 {
        let (live, barrier) = (Live::of_service(1, "web".into(), true, Millis(0)), Barrier::new(4));
        let won: usize = thread::scope(|scope| {
            let run = || {
                barrier.wait();
                usize::from(live.take_probe_permit(Millis(5), 1_000))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
    }
}

#[test]
fn the_check_is_apart_from_ejection_but_answers_a_probe() {
    let (live, policy) = (Live::new(1), Eject::default());
    let check_at = |passed: bool, now, check: &Check| {
        live.record_check(if passed { Ok(()) } else { Err(Failure::Timeout) }, Millis(now), check, &policy, Draw(1))
    };
    let answers: Vec<_> = (0..3).map(|now| check_at(false, now, &check()).map(|t| t.kind)).collect();
    assert_eq!(answers, [None, None, Some(Kind::CheckFailing)]);
    assert!(!live.available() && !live.available_but_for_ejection());
    assert_eq!(check_at(true, 4, &check()), None);
    assert_eq!(check_at(true, 5, &check()).expect("rise is 2").kind, Kind::CheckPassing);
    assert!(live.available());

    live.eject(Millis(10), 1_000).expect("it was in");
    let until = ejected(&live);
    assert_eq!(check_at(true, 20, &check()), None, "a pass does not undo an ejection before its time");
    let readmits = Check { check_readmits: true, ..check() };
    assert_eq!(check_at(true, 21, &readmits).expect("now it does").kind, Kind::Readmitted);
    live.eject(Millis(10), 1_000).expect("it was in");
    assert_eq!(check_at(true, until, &check()).expect("its time is over").kind, Kind::Readmitted);
    live.distrust(Millis(until)).expect("it was in");
    assert!(matches!(check_at(false, until, &check()).expect("failed its probe").kind, Kind::Ejected { .. }));
}

#[test]
fn holding_ends_with_the_first_pass() {
    let live = Live::new(1);
    assert!(live.set_awaits_check(true));
    assert!(!live.available());
    let passing = live.record_check(Ok(()), Millis(1), &check(), &Eject::default(), Draw(1));
    assert_eq!(passing.expect("the first pass counts").kind, Kind::CheckPassing);
    assert!(live.available() && !live.awaits_check());
    assert!(!live.set_awaits_check(true), "it has passed once");
}

#[test]
fn draining_is_its_own_word_and_stops_probes() {
    let live = Live::of_service(1, "web".into(), true, Millis(0));
    assert!(live.wants_probe(Millis(0)));
    assert!(live.set_drained(true) && !live.set_drained(true));
    assert!(live.drained() && !live.wants_probe(Millis(0)));
    live.readmit(Millis(1)).expect("an operator may");
    assert!(!live.available(), "still drained");
    assert!(live.set_drained(false) && live.available());
}

#[test]
fn dirty_is_marked_once_until_cleared() {
    let live = Live::new(1);
    assert!(live.mark_dirty() && !live.mark_dirty());
    live.clear_dirty();
    assert!(live.mark_dirty());
}

#[test]
fn without_enforcement_it_stays_in_and_each_trip_is_reported_once() {
    let (live, policy) = (Live::new(1), Eject { enforce: false, ..Eject::default() });
    let reports: Vec<_> =
        (0..10).filter_map(|now| live.record(Evidence::Status(500), Millis(now), &policy, Draw(1))).collect();
    assert_eq!(reports.len(), 2);
    assert!(reports.iter().all(|report| !report.enforced));
    assert!(live.available());
}

#[test]
fn a_verdict_that_nobody_renews_is_forgotten() {
    let live = Live::new(1);
    for _ in 0..3 {
        live.record_check(Err(Failure::Connect), Millis(0), &check(), &Eject::default(), Draw(1));
    }
    assert_eq!((live.verdict(), live.available()), (Verdict::Failing, false));
    assert!(live.forget_verdict());
    assert_eq!((live.verdict(), live.available()), (Verdict::Unknown, true));
    assert!(!live.forget_verdict());
    live.set_awaits_check(true);
    assert!(live.forget_verdict() && live.available());
}

#[test]
fn a_trial_is_open_to_any_request_only_once_it_was_opened_and_until_it_is_decided() {
    let live = Live::new(1);
    live.eject(Millis(0), 1_000).expect("it was in");
    let until = ejected(&live);
    let waits = [until - 1, until, until + 500].map(|now| live.waits_for_trial(Millis(now)));
    assert_eq!(waits, [0, 0, 500]);
    assert!(!live.open_trial(Millis(until - 1)), "its time is not over");
    assert!(!live.take_open_permit(Millis(4_000), 500), "not open");
    assert!(live.open_trial(Millis(4_000)) && !live.open_trial(Millis(4_000)));
    assert!(live.take_open_permit(Millis(4_000), 500));
    assert!(!live.take_open_permit(Millis(4_400), 500), "one permit only");
    assert!(live.take_open_permit(Millis(4_500), 500), "the permit lapsed");
    once(&live, Evidence::Reset, 4_600).expect("ejected again");
    let until = ejected(&live);
    assert!(!live.take_open_permit(Millis(until), 500), "decided: it waits for the next opening");
    assert!(live.take_probe_permit(Millis(until), 500));
}
