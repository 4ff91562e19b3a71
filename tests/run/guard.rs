//! The guard of rule changes, under load: what moves too much by surprise is refused or said, what was asked for is
//! not, and an operator has the last word. No request fails meanwhile.

use serde_json::Value;

use crate::support::binary::Proxy;
use crate::support::load::Load;
use crate::support::site::{Site, admin_get, admin_post, until};

const HEAD: &str = "service: web\nhosts: [web.test]\npools: {old: version == 1.2, new: version == 1.3}\nrules:\n";
const INSTANCES: [&str; 2] = ["web-1 version=1.2", "web-2 version=1.3"];

fn ramp(share: u32) -> String {
    format!("{HEAD}  - {{name: ramp, split: {{new: {share}%, old: {}%}}}}\n", 100 - share)
}

fn all_to(rule: &str, pool: &str) -> String {
    format!("{HEAD}  - {{name: {rule}, to: {pool}}}\n")
}

async fn rules(proxy: &Proxy) -> Value {
    admin_get(proxy.admin, "/v1/rules").await.unwrap().1
}

/// Enough requests for the guard to have some.
async fn loaded(proxy: &Proxy) -> Load {
    let load = Load::start(proxy.listen, "web.test", 300);
    until("requests were answered", async || load.good() > 100).await;
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enforced_it_refuses_a_surprise_admits_a_raised_weight_and_can_be_overruled() {
    let site = Site::new(&INSTANCES, &ramp(5)).await;
    std::fs::write(site.path("proxy.yaml"), "guard: {mode: enforce}\n").unwrap();
    let proxy = site.proxy(&["--config", site.path("proxy.yaml").to_str().unwrap()]).await;
    let load = loaded(&proxy).await;
    until("that is told", async || rules(&proxy).await["state"] == "as on disk").await;

    // A rule in front of the split takes everything: nobody asked for that.
    let shadowing = ramp(5).replace("  - {name: ramp", "  - {name: first, to: new}\n  - {name: ramp");
    site.write_rules(&shadowing);
    until("the change is refused", async || rules(&proxy).await["last_reload"]["result"] == "guarded").await;
    let report = rules(&proxy).await;
    assert_eq!(report["files"][0]["text"], ramp(5), "the rules before stay");
    assert_eq!(report["state"], "the guard refused the files: differs from disk");
    let class = &report["guard"]["refused"]["report"]["classes"][0];
    assert_eq!((&class["why"], &class["expected"]), (&"shadowed".into(), &false.into()), "{class}");
    let example = &class["examples"][0];
    let live = format!("pointsman explain --admin {} GET http://web.test/", proxy.admin);
    assert!(example["before"].as_str().unwrap().starts_with(&live), "{example}");
    assert!(example["after"].as_str().unwrap().contains(site.rules().to_str().unwrap()), "{example}");
    let (status, ready) = admin_get(proxy.admin, "/ready").await.unwrap();
    assert_eq!((status, &ready["degraded"]), (200, &true.into()), "{ready}");
    until("the log says why", async || proxy.log().contains("refused by the guard")).await;
    let (_, metrics) = admin_get(proxy.admin, "/metrics").await.unwrap();
    let guarded = r#"pointsman_reload_total{what="rules",result="guarded"} 1"#;
    assert!(metrics.as_str().unwrap().contains(guarded), "{metrics}");

    // A raised weight is what somebody asked for, however much it moves.
    site.write_rules(&ramp(95));
    until("the raised weight is in force", async || rules(&proxy).await["files"][0]["text"] == ramp(95)).await;
    until("that is told", async || rules(&proxy).await["state"] == "as on disk").await;

    // Refused again; asked again without force it stays so, with force it is in force.
    site.write_rules(&all_to("other", "old"));
    until("the change is refused", async || rules(&proxy).await["last_reload"]["result"] == "guarded").await;
    let (status, refused) = admin_post(proxy.admin, "/v1/rules/apply", "{}").await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("more than 30.00%"), "{refused}");
    let (status, applied) = admin_post(proxy.admin, "/v1/rules/apply", r#"{"force": true}"#).await;
    assert_eq!(status, 200, "{applied}");
    assert!(!applied["guard"]["exceeded"].as_array().unwrap().is_empty(), "{applied}");
    let report = rules(&proxy).await;
    assert_eq!((&report["files"][0]["text"], &report["state"]), (&all_to("other", "old").into(), &"as on disk".into()));
    assert_eq!(admin_get(proxy.admin, "/ready").await.unwrap().1["degraded"], false);

    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_it_warns_and_applies() {
    let site = Site::new(&INSTANCES, &all_to("all", "old")).await;
    let proxy = site.proxy(&[]).await;
    let load = loaded(&proxy).await;
    site.write_rules(&all_to("every", "new"));
    until("the change is in force", async || rules(&proxy).await["files"][0]["rules"][0]["name"] == "every").await;
    until("the log warns", async || proxy.log().contains("over the guard's limits, and applied all the same")).await;
    until("that is told", async || rules(&proxy).await["state"] == "as on disk").await;
    let report = rules(&proxy).await;
    assert_eq!(report["last_reload"]["result"], "ok");
    assert!(!report["guard"]["passed"]["exceeded"].as_array().unwrap().is_empty(), "{report}");
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_request_a_change_passes_and_that_is_said() {
    let site = Site::new(&INSTANCES, &all_to("all", "old")).await;
    let proxy = {
        std::fs::write(site.path("proxy.yaml"), "guard: {mode: enforce, max_moved: 0%}\n").unwrap();
        site.proxy(&["--config", site.path("proxy.yaml").to_str().unwrap()]).await
    };
    site.write_rules(&all_to("all", "new"));
    until("the change is in force", async || rules(&proxy).await["files"][0]["text"] == all_to("all", "new")).await;
    let passes = "no request came yet, so the guard had nothing to compare";
    let told =
        async || rules(&proxy).await["last_reload"]["reason"].as_str().is_some_and(|reason| reason.contains(passes));
    until("that is told", told).await;
}
