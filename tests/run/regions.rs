//! A zone and a region that are lost under load, and come back.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::support::faulty::Mode;
use crate::support::site::until;

const RATE: u32 = 300;
/// What is measured over so many answers may be this far off: more than four standard deviations of a fair draw.
const ANSWERS: usize = 600;
const TOLERANCE: f64 = 0.08;
/// The proxy's own zone, the other zone of its region, and another region.
const LABELS: [&str; 16] = {
    let mut labels = ["region: us, zone: c"; 16];
    let mut n = 0;
    while n < 14 {
        labels[n] = if n < 10 { "region: eu, zone: a" } else { "region: eu, zone: b" };
        n += 1;
    }
    labels
};
const PLACE: [&str; 4] = ["--region", "eu", "--zone", "a"];

fn rules(failback: &str) -> String {
    format!(
        "service: web\npools: {{all: {{select: region exists, max_ejection_percent: 100%}}}}\n\
         locality: {{prefer: [region, zone], failback: {failback}}}\n\
         eject: {{base_ejection_time: 1s, max_ejection_time: 1s}}\nrules: [{{name: all, to: [all]}}]\n"
    )
}

#[track_caller]
fn near(share: f64, wanted: f64) {
    assert!((share - wanted).abs() <= TOLERANCE, "{share} and not about {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_zone_and_then_a_region_lose_spills_by_the_curve_and_returns_after_failback() {
    let fleet = Fleet::new(&LABELS, &rules("1s"), &PLACE, RATE).await;
    near(fleet.share(0..10, ANSWERS).await, 1.0);
    let mut faults = Vec::new();

    // Half of the zone: health 70 %, so 30 % go to the next one, and nothing to the other region.
    faults.push(fleet.elapsed());
    fleet.turn(0..5, Mode::Dead);
    fleet.comes_to(&[(0, 70), (1, 30), (2, 0)]).await;
    let us = fleet.good(14..16);
    near(fleet.share(0..10, ANSWERS).await, 0.7);
    assert_eq!(fleet.good(14..16), us, "the other region is not needed");

    // All of it.
    faults.push(fleet.elapsed());
    fleet.turn(5..10, Mode::Dead);
    fleet.comes_to(&[(0, 0), (1, 100), (2, 0)]).await;
    let dead = fleet.good(0..10);
    near(fleet.share(10..14, ANSWERS).await, 1.0);
    assert_eq!(fleet.good(0..10), dead);

    // The whole region.
    faults.push(fleet.elapsed());
    fleet.turn(10..14, Mode::Dead);
    fleet.comes_to(&[(0, 0), (1, 0), (2, 100)]).await;
    near(fleet.share(14..16, ANSWERS).await, 1.0);

    // Back: probes readmit, but traffic waits for `failback` of health.
    let (before, back) = (fleet.good(0..14), Instant::now());
    fleet.turn(0..14, Mode::Well);
    // Each instance may answer its probes meanwhile.
    until("the region has traffic again", async || fleet.good(0..14) > before + 30).await;
    assert!(back.elapsed() >= Duration::from_secs(1), "{:?}", back.elapsed());
    fleet.comes_to(&[(0, 100), (1, 0), (2, 0)]).await;
    near(fleet.share(0..10, ANSWERS).await, 1.0);
    fleet.nothing_failed_but_at(&faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_flaps_faster_than_failback_gets_nothing_until_it_holds_still() {
    let labels = ["region: eu", "region: eu", "region: us", "region: us"];
    let failback = Duration::from_secs(4);
    let fleet = Fleet::new(&labels, &rules("4s").replace("region, zone", "region"), &["--region", "eu"], RATE).await;
    let critical = |n: usize| if n < 2 { "status: critical".to_owned() } else { String::new() };
    let routable = |wanted: u64| {
        let fleet = &fleet;
        async move {
            until("the catalog is followed", async || fleet.pool().await["routable"] == wanted).await;
        }
    };
    fleet.catalog(critical);
    routable(2).await;
    fleet.comes_to(&[(0, 0), (1, 100)]).await;
    let begun = fleet.good(0..2);
    for _ in 0..5 {
        let up = Instant::now();
        fleet.catalog(|_| String::new());
        routable(4).await;
        assert_eq!(fleet.loads().await[&0], 0, "it has not lasted");
        fleet.catalog(critical);
        routable(2).await;
        assert!(up.elapsed() < failback, "this machine is too slow to flap");
    }
    let last = Instant::now();
    fleet.catalog(|_| String::new());
    routable(4).await;
    // What was under way when the region was lost may have been counted later.
    assert!(fleet.good(0..2) <= begun + 4, "it got traffic while it flapped");
    until("the region has traffic again", async || fleet.good(0..2) > begun + 20).await;
    assert!(last.elapsed() >= failback, "{:?}", last.elapsed());
    fleet.comes_to(&[(0, 100), (1, 0)]).await;
    let tally = fleet.nothing_failed_but_at(&[]).await;
    assert!(tally.good > 0);
}
