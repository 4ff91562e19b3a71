//! Ejection by comparison with the rest of the pool, over real sockets.

use crate::support::binary::Proxy;
use crate::support::load::{Load, get};
use crate::support::scripted_instance::{ScriptedInstance, catalog};
use crate::support::site::{Site, events, instance, replace, until};

const RULES: &str = "service: web
pools: {all: version == 1.2}
eject: {latency_factor: 4, window: 2s, consecutive_5xx: 0, success_rate: 0%, failure_percentage: 30%, min_requests: 20}
rules: [{name: all, to: [all]}]
";

async fn two(rules: &str) -> (Site, [ScriptedInstance; 2], Proxy) {
    let site = Site::new(&[], rules).await;
    let both = [ScriptedInstance::start("web-1").await, ScriptedInstance::start("web-2").await];
    replace(&site.catalog(), &catalog(&[("web-1", &both[0]), ("web-2", &both[1])]));
    let proxy = site.proxy(&[]).await;
    (site, both, proxy)
}

async fn metrics(proxy: &Proxy) -> String {
    get(proxy.admin, &proxy.admin.to_string(), "/metrics", &mut None).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_instance_is_ejected_and_the_event_and_the_figures_say_why() {
    let (_site, both, proxy) = two(RULES).await;
    both[0].answers(200, 5);
    both[1].answers(200, 80);
    let load = Load::start(proxy.listen, "web.test", 200);
    until("the slow one is out", async || instance(proxy.admin, "web", "web-2").await["health"]["state"] == "ejected")
        .await;
    until("it is told", async || !events(proxy.admin, "ejected", "web-2").await.is_empty()).await;
    let told = events(proxy.admin, "ejected", "web-2").await;
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("p90 ") && reason.contains("pool median "), "{reason}");
    for line in [
        "pointsman_ejections_total{service=\"web\",reason=\"latency\"} 1",
        "pointsman_endpoints{service=\"web\",version=\"1.2\",state=\"ejected\"} 1",
        "pointsman_endpoints{service=\"web\",version=\"1.2\",state=\"available\"} 1",
        "pointsman_pool_ejected{service=\"web\",pool=\"all\"} 1",
    ] {
        until(line, async || metrics(&proxy).await.contains(line)).await;
    }
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_enforcement_a_share_of_failures_is_told_and_nobody_leaves() {
    let rules = RULES.replace("min_requests: 20", "min_requests: 20, enforce: false");
    let (_site, both, proxy) = two(&rules).await;
    both[1].answers(500, 0);
    let load = Load::start(proxy.listen, "web.test", 200);
    until("it is reported", async || !events(proxy.admin, "eject_reported", "web-2").await.is_empty()).await;
    let reason = events(proxy.admin, "eject_reported", "web-2").await[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(" of the last ") && reason.contains("with 500"), "{reason}");
    assert_eq!(instance(proxy.admin, "web", "web-2").await["available"], true);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_of_five_that_fails_far_more_than_the_others_is_ejected_by_standard_deviations() {
    let rules = "service: web
pools: {all: version == 1.2}
eject: {stdev_factor: 1.9, consecutive_5xx: 0, success_rate: 0%}
retry: {attempts: 1}
rules: [{name: all, to: [all]}]
";
    let site = Site::new(&[], rules).await;
    let mut five = Vec::new();
    for n in 1..=5 {
        five.push((format!("web-{n}"), ScriptedInstance::start(&format!("web-{n}")).await));
    }
    let listed: Vec<_> = five.iter().map(|(id, instance)| (id.as_str(), instance)).collect();
    replace(&site.catalog(), &catalog(&listed));
    let proxy = site.proxy(&[]).await;
    five[4].1.answers(500, 0);
    let load = Load::start(proxy.listen, "web.test", 400);
    until("it is out", async || instance(proxy.admin, "web", "web-5").await["health"]["state"] == "ejected").await;
    until("it is told", async || !events(proxy.admin, "ejected", "web-5").await.is_empty()).await;
    let told = events(proxy.admin, "ejected", "web-5").await;
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(reason.contains("is an outlier"), "{reason}");
    for id in ["web-1", "web-2", "web-3", "web-4"] {
        assert_eq!(instance(proxy.admin, "web", id).await["health"]["state"], "healthy", "{id}");
    }
    load.stop().await;
}
