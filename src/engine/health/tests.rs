use super::*;

const NOW: Millis = Millis(1_000_000);

fn failing(times: u8, any: u32) -> Health {
    Health { times, streak: Streak { any, ..Streak::default() }, ..Health::new(Millis(0)) }
}

fn until(kind: Kind) -> u64 {
    match kind {
        Kind::Ejected { until, .. } => until.0,
        other => panic!("ejected, not {other:?}"),
    }
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    let policy = Eject::default();
    let last = Evidence::Status(503);
    assert_eq!(step(failing(0, 4), last, NOW, &policy, Draw(1)).1, None);
    let (next, transition) = step(failing(0, 5), last, NOW, &policy, Draw(1));
    let transition = transition.expect("a transition");
    assert_eq!(transition.reason, Reason::Consecutive5xx { count: 5, last });
    assert!((NOW.0 + 30_000..=NOW.0 + 33_000).contains(&until(transition.kind)));
    assert!(next.is_out());
    assert_eq!(next.streak, Streak::default());
}

#[test]
fn the_other_streaks_trip_only_where_set() {
    let mut health = Health::new(Millis(0));
    health.streak = Streak { any: 4, gateway: 3, local: 2 };
    let mut policy = Eject::default();
    assert_eq!(step(health, Evidence::Reset, NOW, &policy, Draw(1)).1, None);
    policy.consecutive_local_origin_failure = 2;
    let reason = step(health, Evidence::Reset, NOW, &policy, Draw(1)).1.expect("trips").reason;
    assert_eq!(reason, Reason::ConsecutiveLocalOriginFailure { count: 2, last: Evidence::Reset });
    policy.consecutive_gateway_failure = 3;
    let reason = step(health, Evidence::Reset, NOW, &policy, Draw(1)).1.expect("trips").reason;
    assert_eq!(reason, Reason::ConsecutiveGatewayFailure { count: 3, last: Evidence::Reset });
}

#[test]
fn the_success_rate_counts_429_and_says_its_numbers() {
    let mut health = Health::new(Millis(0));
    health.window = Tally { requests: 7, failed: 6 };
    let last = Evidence::Status(429);
    let reason = step(health, last, NOW, &Eject::default(), Draw(1)).1.expect("trips").reason;
    assert_eq!(reason, Reason::SuccessRate { failed: 6, requests: 7, last });
    health.window = Tally { requests: 4, failed: 4 };
    assert_eq!(step(health, last, NOW, &Eject::default(), Draw(1)).1, None);
    health.window = Tally { requests: 7, failed: 6 };
    let off = Eject { success_rate: 0, ..Eject::default() };
    assert_eq!(step(health, last, NOW, &off, Draw(1)).1, None);
}

#[test]
fn a_share_of_failures_trips_only_where_set_and_from_enough_requests_on() {
    let policy = Eject { failure_percentage: 300_000, min_requests: 10, ..Eject::default() };
    let last = Evidence::Status(500);
    let judge = |requests, failed, policy: &Eject| {
        let health = Health { window: Tally { requests, failed }, ..failing(0, 1) };
        step(health, last, NOW, policy, Draw(1)).1.map(|transition| transition.reason)
    };
    assert_eq!(judge(10, 3, &policy), Some(Reason::FailurePercentage { failed: 3, requests: 10, last }));
    assert_eq!(judge(11, 3, &policy), None);
    assert_eq!(judge(9, 3, &policy), None);
    assert_eq!(judge(10, 3, &Eject::default()), None);
}

#[test]
fn ejection_doubles_to_the_maximum_and_falls_a_step_per_healthy_window() {
    let policy = Eject::default();
    let lengths: Vec<u64> = (0..6)
        .map(|times| {
            let mut health = failing(times, 5);
            health.state = State::Healthy { since: NOW };
            let (_, transition) = step(health, Evidence::Connect, NOW, &policy, Draw(0));
            (until(transition.expect("trips").kind) - NOW.0) / 1_000
        })
        .collect();
    for (length, base) in lengths.iter().zip([30, 60, 120, 240, 300, 300]) {
        assert!((base..=base + base / 10).contains(length), "{lengths:?}");
    }
    let mut health = failing(3, 0);
    health.state = State::Healthy { since: NOW };
    let times: Vec<u8> = [0, 9_999, 10_000, 25_000, 90_000].map(|ms| health.times_at(NOW.plus(ms), &policy)).to_vec();
    assert_eq!(times, [3, 3, 2, 1, 0]);
}

#[test]
fn nothing_changes_while_the_ejection_time_runs() {
    let health = Health { state: State::Ejected { until: NOW }, times: 1, ..failing(1, 50) };
    let before = Millis(NOW.0 - 1);
    for evidence in [Evidence::Success, Evidence::Connect, Evidence::Status(429)] {
        assert_eq!(step(health, evidence, before, &Eject::default(), Draw(1)), (health, None));
    }
}

#[test]
fn a_probe_readmits_or_ejects_twice_as_long_and_429_leaves_it_open() {
    let policy = Eject::default();
    let out = [State::Ejected { until: NOW }, State::Probing { permit_until: NOW.plus(500) }];
    for state in out {
        let health = Health { state, times: 1, ..failing(1, 1) };
        let (next, transition) = step(health, Evidence::Success, NOW, &policy, Draw(1));
        assert_eq!(transition.expect("readmitted").kind, Kind::Readmitted);
        assert_eq!((next.state, next.times), (State::Healthy { since: NOW }, 1));
        let (next, transition) = step(health, Evidence::Timeout, NOW, &policy, Draw(1));
        let transition = transition.expect("ejected");
        assert_eq!(transition.reason, Reason::ProbeFailed { last: Evidence::Timeout });
        assert!(until(transition.kind) >= NOW.0 + 60_000);
        assert_eq!(next.times, 2);
        assert_eq!(step(health, Evidence::Status(429), NOW, &policy, Draw(1)), (health, None));
    }
}

#[test]
fn without_enforcement_the_verdict_is_only_reported() {
    let policy = Eject { enforce: false, ..Eject::default() };
    let (next, transition) = step(failing(0, 5), Evidence::Connect, NOW, &policy, Draw(1));
    assert!(!transition.expect("a report").enforced);
    assert_eq!(next, failing(0, 5));
}
