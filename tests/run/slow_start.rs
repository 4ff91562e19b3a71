//! A new instance beside old ones gets its share little by little, under load.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::support::site::{instance, until};

const WINDOW: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_new_instance_grows_during_its_window() {
    let rules = "service: web\npools: {all: version exists}\nslow_start: {window: 10s, aggression: 1}\n\
                 rules: [{name: all, to: [all]}]\n";
    // The third one is not routable before it passes in the catalog.
    let absent = |n: usize| if n == 2 { "status: critical".to_owned() } else { String::new() };
    let fleet = Fleet::with(&["version: 1"; 3], rules, &[], 800, absent).await;
    assert_eq!(fleet.good(2..3), 0);
    fleet.catalog(|_| String::new());
    until("it passes", async || instance(fleet.proxy.admin, "web", "web-2").await["status"] == "passing").await;
    let new = Instant::now();

    let (early, at) = (fleet.share(2..3, 400).await, new.elapsed());
    // Its chance to be kept is at most this by now; who is not kept is drawn again, at most four times. While others have
    // requests in flight it may be preferred to the one that was drawn, with the same chance.
    let chance = (at.as_secs_f64() / WINDOW.as_secs_f64()).max(0.1);
    let drawn = chance / 3.0 / (1.0 - (1.0 - chance) / 3.0);
    let most = drawn + (1.0 - drawn) * chance + 0.05;
    assert!(early > 0.0 && early < most, "{early} after {at:?}, and not below {most}");

    until("the window is over", async || new.elapsed() > WINDOW).await;
    let late = fleet.share(2..3, 2_000).await;
    assert!((late - 1.0 / 3.0).abs() <= 0.05, "{late}");
    fleet.nothing_failed_but_at(&[]).await;
}
