//! Weights that change in the catalog are followed while traffic flows.

use crate::fleet::Fleet;
use crate::support::site::until;

const RATE: u32 = 800;
const ANSWERS: usize = 2_000;
/// The figure: within 5 % under load.
const TOLERANCE: f64 = 0.05;

/// `latency`: it goes by that as well, and that of a busy machine is anybody's: one stall sends everything elsewhere for
/// a minute. Then only weights that leave it no choice are measured.
async fn followed(balance: &str, latency: bool) {
    let rules = format!(
        "service: web\npools: {{all: version exists}}\nbalance: {balance}\nrules: [{{name: all, to: [all]}}]\n"
    );
    let fleet = Fleet::new(&["version: 1"; 3], &rules, &[], RATE).await;
    // The weights of the first instance, and its share beside two of weight 1 (10 where it has few).
    for (keys, others, weight, share) in [
        ("weight: 1", 1, 1, 1.0 / 3.0),
        ("weight: 0", 1, 0, 0.0),
        ("weight: 65535", 1, 65_535, 1.0),
        ("weight: 1", 1, 1, 1.0 / 3.0),
        ("weights: {passing: 10, warning: 2}, status: warning", 10, 2, 1.0 / 11.0),
        ("weights: {passing: 10, warning: 2}", 10, 10, 1.0 / 3.0),
    ] {
        fleet.catalog(|n| if n == 0 { keys.to_owned() } else { format!("weight: {others}") });
        until("the weight is published", async || {
            let first = crate::support::site::instance(fleet.proxy.admin, "web", "web-0").await;
            let second = crate::support::site::instance(fleet.proxy.admin, "web", "web-1").await;
            first["weight"] == weight && second["weight"] == others
        })
        .await;
        let before = fleet.good(0..1);
        let got = fleet.share(0..1, ANSWERS).await;
        let measured = !latency || share == 0.0 || share == 1.0;
        assert!(!measured || (got - share).abs() <= TOLERANCE, "{balance}, {keys}: {got} and not {share}");
        // One that was decided before the table changed may still have been under way.
        assert!(weight > 0 || fleet.good(0..1) <= before + 4, "{balance}: a weight of 0 gets nothing");
    }
    fleet.nothing_failed_but_at(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_followed_by_least() {
    followed("least", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_followed_by_round_robin() {
    followed("round_robin", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_followed_by_ewma() {
    followed("ewma", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_followed_by_hash() {
    // A value of its own in each request.
    followed("hash(query.n)", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_followed_by_random() {
    followed("random", false).await;
}
