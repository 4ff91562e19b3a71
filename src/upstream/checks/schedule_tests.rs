use std::collections::HashMap;
use std::sync::Arc;

use super::schedule::{Means, Schedule, Target};
use crate::engine::health::check::Failure;
use crate::engine::policy::{Check, Eject, Probe};
use crate::engine::snapshot::{Endpoint, LiveSet, ServiceSnapshot};
use crate::engine::testing::{instance, service};
use crate::engine::time::{Draw, Millis};

fn target(id: &str) -> Target {
    let both = ["a", "b"].map(|id| Arc::new(instance("web", id, 80, &[])));
    let web = service("web", both.into());
    let endpoint = web.by_id(id).expect("one of the two").1.clone();
    let check = Check { timeout: 1, ..Check::new(Check::CONNECTS) };
    Target { endpoint, check: Arc::new(check), eject: Arc::default(), upstream: Arc::default() }
}

fn anywhere(_: Means) -> bool {
    true
}

fn gap(schedule: &mut Schedule, now: Millis, changing: bool) -> u64 {
    let (means, target) = schedule.take_due(now, anywhere).expect("a check is due");
    schedule.finished((means, &target), changing, now, Draw(now.0));
    schedule.next(anywhere).expect("planned").since(now)
}

#[test]
fn a_new_endpoint_is_checked_at_once_then_at_its_interval_with_jitter() {
    let mut schedule = Schedule::default();
    schedule.reconcile([target("a")], Millis(100));
    let steady = gap(&mut schedule, Millis(100), false);
    assert!((4_000..=6_000).contains(&steady), "{steady}");
    assert!(schedule.take_due(Millis(100), anywhere).is_none());
}

#[test]
fn checks_come_faster_while_the_verdict_is_in_doubt() {
    let mut schedule = Schedule::default();
    schedule.reconcile([target("a")], Millis(0));
    let doubtful = gap(&mut schedule, Millis(0), true);
    assert!((800..=1_200).contains(&doubtful), "{doubtful}");
}

#[test]
fn reconciling_keeps_times_and_forgets_who_is_gone() {
    let (mut schedule, stays, goes) = (Schedule::default(), target("a"), target("b"));
    schedule.reconcile([stays.clone()], Millis(0));
    gap(&mut schedule, Millis(0), false);
    schedule.reconcile([stays.clone(), goes.clone()], Millis(5));
    let (means, new) = schedule.take_due(Millis(5), anywhere).expect("the new one");
    assert_eq!(new.endpoint.instance.id, goes.endpoint.instance.id);
    let gone = schedule.reconcile([stays], Millis(10));
    assert_eq!(gone.iter().map(|target| &*target.endpoint.instance.id).collect::<Vec<_>>(), ["b"]);
    schedule.finished((means, &goes), false, Millis(20), Draw(1));
    assert!(schedule.take_due(Millis(20), anywhere).is_none(), "the staying one keeps its time");
    schedule.reconcile([], Millis(30));
    assert!(schedule.is_empty() && schedule.take_due(Millis(100_000), anywhere).is_none());
}

#[test]
fn a_busy_endpoint_is_checked_more_often_and_an_idle_one_less() {
    let (mut schedule, one) = (Schedule::default(), target("a"));
    let live = Arc::clone(&one.endpoint.live);
    live.record_check(Ok(()), Millis(0), &one.check, &Eject::default(), Draw(1));
    schedule.reconcile([one], Millis(0));
    let mut now = Millis(0);
    let serve = |per_second: u64, now: &mut Millis, schedule: &mut Schedule| {
        let wait = gap(schedule, *now, false);
        (0..per_second * wait / 1_000).for_each(|_| {
            live.begin();
            live.end();
        });
        *now = now.plus(wait);
        wait
    };
    serve(250, &mut now, &mut schedule);
    let busy = serve(250, &mut now, &mut schedule);
    assert!((1_333..=2_000).contains(&busy), "5 s by three digits: {busy}");
    serve(0, &mut now, &mut schedule);
    let quiet = serve(0, &mut now, &mut schedule);
    assert!((4_000..=6_000).contains(&quiet), "not idle for long enough: {quiet}");
    let waits: Vec<u64> = (0..20).map(|_| serve(0, &mut now, &mut schedule)).collect();
    assert!((48_000..=72_000).contains(waits.last().unwrap()), "{waits:?}");
}

#[test]
fn fifty_thousand_endpoints_are_checked_evenly_and_never_many_at_once() {
    const COUNT: usize = 50_000;
    const TOOK: u64 = 20;
    let instances = (0..COUNT).map(|at| Arc::new(instance("web", &format!("i{at:05}"), 80, &[]))).collect();
    let web = service("web", instances);
    let check = Arc::new(Check { interval: 10_000, idle_interval: 10_000, ..Check::new(Check::CONNECTS) });
    let eject = Arc::new(Eject::default());
    let target = |endpoint: &Endpoint| Target {
        endpoint: endpoint.clone(),
        check: Arc::clone(&check),
        eject: Arc::clone(&eject),
        upstream: Arc::default(),
    };
    let mut schedule = Schedule::default();
    schedule.reconcile(web.endpoints.iter().map(target), Millis(0));
    let mut running = std::collections::VecDeque::<(u64, Means, Target)>::new();
    let mut started = [0usize; 600];
    let (mut most, mut last) = (0, HashMap::<u64, u64>::new());
    let mut longest = 0;
    for now in 0..60_000u64 {
        while running.front().is_some_and(|(ends, ..)| *ends <= now) {
            let (_, means, ended) = running.pop_front().unwrap();
            schedule.finished((means, &ended), false, Millis(now), Draw(now ^ ended.endpoint.live.id << 20));
        }
        while let Some((means, due)) = schedule.take_due(Millis(now), anywhere) {
            let id = due.endpoint.live.id;
            running.push_back((now + TOOK, means, due));
            longest = longest.max(last.insert(id, now).map_or(now, |before| now - before));
            started[now as usize / 100] += 1;
        }
        most = most.max(running.len());
    }
    assert_eq!(last.len(), COUNT, "each was checked");
    assert!(longest <= 13_000, "the longest wait was {longest} ms");
    assert!(most <= 450, "{most} at once");
    let steady = &started[300..];
    let (least, peak) = (steady.iter().min().unwrap(), steady.iter().max().unwrap());
    assert!(*least >= 330 && *peak <= 700, "between {least} and {peak} in a tenth of a second, on average 500");
}

/// Endpoints of a service, one check for all.
fn targets(lives: &mut LiveSet, name: &str, count: usize, check: Check) -> Vec<Target> {
    let instances = (0..count).map(|at| Arc::new(instance(name, &format!("{name}-{at:05}"), 80, &[]))).collect();
    let service = ServiceSnapshot::build(name.into(), 1, instances, lives, Millis(0));
    let check = Arc::new(check);
    let target = |endpoint: &Endpoint| Target {
        endpoint: endpoint.clone(),
        check: Arc::clone(&check),
        eject: Arc::default(),
        upstream: Arc::default(),
    };
    service.endpoints.iter().map(target).collect()
}

/// Runs the plan with so many places for 60 s, after the first of those for the endpoints in question; the longest time
/// between two starts for one of them, and how many checks of all others started.
fn longest_wait(
    targets: Vec<Target>,
    in_question: impl Fn(&Target) -> bool,
    took: impl Fn(&Target) -> u64,
    places: [usize; 4],
) -> (u64, usize) {
    let mut schedule = Schedule::default();
    schedule.reconcile(targets, Millis(0));
    let mut running = std::collections::BTreeMap::<(u64, u64), (Means, Target)>::new();
    let mut taken = [0usize; 4];
    let (mut last, mut longest, mut others) = (HashMap::<u64, u64>::new(), 0, 0);
    for now in 0..60_000u64 {
        while let Some(ended) = running.first_entry().filter(|entry| entry.key().0 <= now).map(|entry| entry.remove()) {
            let (means, ended) = ended;
            taken[means as usize] -= 1;
            let answer = if took(&ended) < 1_000 { Ok(()) } else { Err(Failure::Timeout) };
            ended.endpoint.live.record_check(answer, Millis(now), &ended.check, &ended.eject, Draw(1));
            schedule.finished((means, &ended), false, Millis(now), Draw(now ^ ended.endpoint.live.id << 20));
        }
        while let Some((means, due)) =
            schedule.take_due(Millis(now), |means| taken[means as usize] < places[means as usize])
        {
            taken[means as usize] += 1;
            let id = due.endpoint.live.id;
            if in_question(&due) {
                longest = longest.max(now - last.insert(id, now).unwrap_or(now));
            } else {
                others += 1;
            }
            running.insert((now + took(&due), id), (means, due));
        }
    }
    (longest, others)
}

fn is_of(service: &str) -> impl Fn(&Target) -> bool + '_ {
    move |target| &*target.endpoint.instance.service == service
}

#[test]
fn instances_that_hang_keep_no_healthy_one_of_their_own_service_waiting() {
    let mut lives = LiveSet::default();
    let all = targets(&mut lives, "web", 5_000, Check::new(Check::CONNECTS));
    // One in ten answers.
    let is_well = |target: &Target| target.endpoint.instance.id.ends_with('7');
    let took = |target: &Target| if is_well(target) { 5 } else { 2_000 };
    let (longest, hanging) = longest_wait(all, is_well, took, [512, 16, 256, 256]);
    assert!(longest <= 6_000 + 100, "5 s and a jitter of 20 %, but {longest} ms");
    assert!(hanging >= 6_000, "those that hang are asked in turn, 128 a second, but {hanging} checks");
}

#[test]
fn ten_thousand_instances_that_do_not_answer_keep_no_other_service_waiting() {
    let check = Check::new(Check::CONNECTS);
    let mut lives = LiveSet::default();
    let mut all = targets(&mut lives, "gone", 10_000, check.clone());
    all.extend(targets(&mut lives, "web", 50, check));
    let took = |target: &Target| if &*target.endpoint.instance.service == "gone" { 2_000 } else { 5 };
    let (longest, others) = longest_wait(all, is_of("web"), took, [512, 16, 256, 256]);
    assert!(longest <= 6_000 + 100, "5 s and a jitter of 20 %, but {longest} ms");
    assert!(others >= 10_000, "256 places for those that are new and 256 for 2 s each, but {others} in a minute");
}

#[test]
fn commands_that_hang_take_their_own_places_only() {
    let command = Check::new(Probe::Command { argv: vec!["/bin/sleep".into()] });
    let mut lives = LiveSet::default();
    let mut all = targets(&mut lives, "slow", 1_000, command);
    all.extend(targets(&mut lives, "web", 50, Check::new(Check::CONNECTS)));
    let took = |target: &Target| if &*target.endpoint.instance.service == "slow" { 30_000 } else { 5 };
    let (longest, others) = longest_wait(all, is_of("web"), took, [16, 16, 16, 16]);
    assert!(longest <= 6_000 + 100, "5 s and a jitter of 20 %, but {longest} ms");
    assert_eq!(others, 32, "16 places for 30 s each, in a minute");
}

#[test]
fn two_checks_of_one_endpoint_give_two_places_back() {
    let of = |name: &str| {
        let service = service(name, vec![Arc::new(instance(name, "a", 80, &[]))]);
        Target { endpoint: service.endpoints[0].clone(), ..target("a") }
    };
    let (first, second) = (of("first"), of("second"));
    let mut schedule = Schedule::default();
    let mut taken = Vec::new();
    for now in [Millis(0), Millis(1)] {
        // Taken out while its check runs, and put back.
        schedule.reconcile([], now);
        schedule.reconcile([first.clone()], now);
        taken.push(schedule.take_due(now, anywhere).expect("it is new"));
    }
    for (means, target) in taken {
        schedule.finished((means, &target), false, Millis(2), Draw(1));
    }
    // Of two with nothing under way the first by name is first.
    schedule.reconcile([], Millis(3));
    schedule.reconcile([first, second], Millis(3));
    let (_, next) = schedule.take_due(Millis(3), anywhere).expect("both are due");
    assert_eq!(&*next.endpoint.instance.service, "first");
}

#[test]
fn a_check_that_becomes_a_command_waits_for_a_place_of_the_other_kind() {
    let mut schedule = Schedule::default();
    let socket = target("a");
    let argv = Probe::Command { argv: vec!["/bin/true".into()] };
    let command = Target { check: Arc::new(Check::new(argv)), ..socket.clone() };
    schedule.reconcile([socket], Millis(0));
    assert!(schedule.take_due(Millis(0), |_| false).is_none(), "it waits, and there is no place");
    schedule.reconcile([command.clone()], Millis(1));
    assert!(schedule.take_due(Millis(1), |means| means == Means::Socket).is_none());
    assert!(schedule.take_due(Millis(1), |means| means == Means::Program).is_some());
    assert!(schedule.take_due(Millis(1), anywhere).is_none(), "once");
    schedule.finished((Means::Program, &command), false, Millis(2), Draw(1));
    assert!(schedule.next(anywhere).is_some_and(|at| at >= Millis(4_000)));
}
