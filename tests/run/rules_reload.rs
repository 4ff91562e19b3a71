//! Rules that change under load: the new ones at once, broken ones never, no request lost either way.

use std::time::Duration;

use crate::support::binary::Proxy;
use crate::support::load::Load;
use crate::support::site::{Site, admin_get, until};

const STABLE: &str =
    "service: web\npools: {old: version == 1.2, new: version == 1.3}\nrules: [{name: all, to: [old]}]\n";
const GRAY: &str = "service: web\npools: {old: version == 1.2, new: version == 1.3}\nrules: [{name: all, to: [new]}]\n";
const BROKEN: &str = "service: web\npools: {old: version == 1.2}\nrules: [{name: all, to: [odl]}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_move_traffic_and_broken_ones_change_nothing_but_the_report() {
    let site = Site::new(&["web-1 version=1.2", "web-2 version=1.3"], STABLE).await;
    let proxy = site.proxy(&[]).await;
    let load = Load::start(proxy.listen, "web.test", 400);
    until("the old version answers", async || load.good() > 50).await;
    assert!(load.bodies().keys().all(|body| body.starts_with("web-1 ")), "{:?}", load.bodies());

    site.write_rules(GRAY);
    until("the new version answers", async || load.bodies().keys().any(|body| body.starts_with("web-2 "))).await;

    site.write_rules(BROKEN);
    until("the report says why", async || {
        let (_, report) = admin_get(proxy.admin, "/v1/rules").await.unwrap();
        report["last_reload"]["result"] == "failed"
    })
    .await;
    let (_, report) = admin_get(proxy.admin, "/v1/rules").await.unwrap();
    let drawn = report["last_reload"]["diagnostics"][0]["text"].as_str().unwrap();
    assert!(drawn.contains("web.yaml:3:") && drawn.contains("did you mean `old`?"), "{drawn}");
    assert!(report["last_reload"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{report}");
    assert_eq!(report["files"][0]["text"], GRAY, "the rules in force are those before");
    until("the log says why", async || proxy.log().contains("odl")).await;
    let before = load.bodies();
    let good = load.good();
    until("traffic goes on", async || load.good() > good + 50).await;
    let moved = |bodies: &std::collections::BTreeMap<String, usize>| -> usize {
        bodies.iter().filter(|(body, _)| body.starts_with("web-1 ")).map(|(_, n)| n).sum()
    };
    assert_eq!(moved(&before), moved(&load.bodies()), "the broken file moved nobody back");

    site.write_rules(STABLE);
    until("the refusal is gone", async || {
        admin_get(proxy.admin, "/v1/rules").await.unwrap().1["last_reload"]["result"] == "ok"
    })
    .await;
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_good_and_broken_in_turn_lose_no_request() {
    let site = Site::new(&["web-1 version=1.2", "web-2 version=1.3"], STABLE).await;
    let proxy = site.proxy(&[]).await;
    let load = Load::start(proxy.listen, "web.test", 400);
    for n in 0..100 {
        site.write_rules([STABLE, BROKEN, GRAY, "not: [yaml"][n % 4]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
    assert!(tally.good > 500, "{}", tally.good);
    let (accepted, failed) = (reloads(&proxy, "ok").await, reloads(&proxy, "failed").await);
    assert!(accepted > 10 && failed > 10, "{accepted} accepted, {failed} failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_rules_again() {
    let site = Site::new(&["web-1 version=1.2"], STABLE).await;
    let proxy = site.proxy(&[]).await;
    let before = reloads(&proxy, "ok").await;
    proxy.signal("HUP");
    until("the rules are applied again", async || reloads(&proxy, "ok").await == before + 1).await;
}

/// `pointsman_reload_total` of the rules.
async fn reloads(proxy: &Proxy, result: &str) -> u64 {
    let (_, text) = admin_get(proxy.admin, "/metrics").await.unwrap();
    let lines = text.as_str().unwrap().lines();
    let wanted = lines.filter(|line| {
        line.starts_with("pointsman_reload_total{") && line.contains("\"rules\"") && line.contains(&format!("\"{result}\""))
    });
    wanted.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}
