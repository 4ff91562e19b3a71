//! Shadow rules, under load: a candidate that would move 40 % is refused, a good one promoted, and no request fails.

use serde_json::Value;

use crate::support::binary::Proxy;
use crate::support::load::{self, Load};
use crate::support::site::{Site, admin_get, admin_post, replace, until};

const HEAD: &str = "service: web\nhosts: [web.test]\npools: {old: version == 1.2, new: version == 1.3}\nrules:\n";
const INSTANCES: [&str; 2] = ["web-1 version=1.2", "web-2 version=1.3"];

/// So much of the requests goes to the new version, by luck.
fn ramp(share: u32) -> String {
    format!("{HEAD}  - {{name: ramp, split: {{new: {share}%, old: {}%}}}}\n", 100 - share)
}

async fn shadow(proxy: &Proxy) -> Value {
    admin_get(proxy.admin, "/v1/shadow").await.unwrap().1
}

/// What `shadow` says when no request is being counted: its figures are added one after the other.
async fn between_requests(proxy: &Proxy) -> Value {
    let mut last = shadow(proxy).await;
    for _ in 0..1_000 {
        let seen = shadow(proxy).await;
        if seen["measured"] == last["measured"] {
            return seen;
        }
        last = seen;
    }
    panic!("it is never quiet: {last}");
}

async fn rules(proxy: &Proxy) -> Value {
    admin_get(proxy.admin, "/v1/rules").await.unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_moves_too_much_is_refused_and_a_good_one_promoted() {
    let site = Site::new(&INSTANCES, &ramp(5)).await;
    let (candidate, log) = (site.path("candidate.yaml"), site.path("shadow.jsonl"));
    replace(&candidate, &ramp(45));
    std::fs::write(site.path("proxy.yaml"), format!("shadow: {{log: {}}}\n", log.display())).unwrap();
    let config = site.path("proxy.yaml");
    let args = ["--config", config.to_str().unwrap(), "--shadow-rules", candidate.to_str().unwrap()];
    let proxy = site.proxy(&args).await;
    let load = Load::start(proxy.listen, "web.test", 400);

    // Too early: nothing can be said of so few requests.
    let (status, refused) = admin_post(proxy.admin, "/v1/shadow/promote", r#"{"max_moved": "100%"}"#).await;
    assert_eq!(status, 409, "{refused}");
    let enough = r#"{"max_moved": "30%", "min_requests": 300}"#;
    until("enough was compared", async || shadow(&proxy).await["measured"]["requests"].as_u64() > Some(300)).await;

    // 5 % to 45 % moves 40 %, exactly, although luck splits.
    let seen = between_requests(&proxy).await;
    assert!((seen["measured"]["moved"].as_f64().unwrap() - 0.4).abs() < 1e-6, "{seen}");
    assert_eq!(seen["measured"]["newly_unrouted"], 0);
    let last = &seen["disagreements"][0];
    assert_eq!((&last["live"]["rule"], &last["shadow"]["goal"]), (&"web/ramp".into(), &"new".into()), "{last}");
    let live = format!("pointsman explain --admin {} GET http://web.test/", proxy.admin);
    assert!(last["explain"]["live"].as_str().unwrap().starts_with(&live), "{last}");
    assert!(last["explain"]["shadow"].as_str().unwrap().contains("candidate.yaml"), "{last}");
    let (status, refused) = admin_post(proxy.admin, "/v1/shadow/promote", enough).await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("40.00% of the requests would move"), "{refused}");
    assert_eq!(rules(&proxy).await["files"][0]["text"], ramp(5));
    let (_, metrics) = admin_get(proxy.admin, "/metrics").await.unwrap();
    let family = r#"pointsman_shadow_decisions_total{service="web",rule="ramp",candidate_rule="ramp",agrees="false"}"#;
    assert!(metrics.as_str().unwrap().contains(family), "{metrics}");
    until("disagreements were written", async || std::fs::read_to_string(&log).is_ok_and(|t| t.contains('\n'))).await;
    assert_the_lines_can_be_replayed(&site, &log);

    // A broken candidate changes nothing but the report.
    replace(&candidate, "not: [yaml");
    until("the report says so", async || shadow(&proxy).await["last_reload"]["result"] == "failed").await;
    assert!(shadow(&proxy).await["measured"]["requests"].as_u64() > Some(300));

    replace(&candidate, &ramp(10));
    until("the good candidate was compared", async || {
        let seen = shadow(&proxy).await;
        let moved = seen["measured"]["moved"].as_f64().unwrap_or(1.0);
        seen["measured"]["requests"].as_u64() > Some(300) && (moved - 0.05).abs() < 1e-6
    })
    .await;
    let (status, promoted) = admin_post(proxy.admin, "/v1/shadow/promote", enough).await;
    assert_eq!(status, 200, "{promoted}");
    let report = rules(&proxy).await;
    assert_eq!(report["state"], "promoted, differs from disk");
    assert_eq!(report["files"][0]["text"], ramp(10));
    proxy.signal("HUP");
    until("both agree now", async || {
        let measured = shadow(&proxy).await["measured"].clone();
        measured["requests"].as_u64() > Some(50) && measured["agreeing"] == measured["requests"]
    })
    .await;
    assert_eq!(rules(&proxy).await["state"], "promoted, differs from disk", "reading again does not end it");

    // The files change: what they say is in force again.
    site.write_rules(&ramp(20));
    until("the files are in force", async || rules(&proxy).await["files"][0]["text"] == ramp(20)).await;
    until("that is told", async || rules(&proxy).await["state"] == "as on disk").await;
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

/// Keys, luck and conditions differ between the two.
const KEYED: [&str; 2] = [
    "rules:
  - {name: testers, when: header.x-group == 'test', to: new}
  - {name: keyed, when: path == '/k', key: header.x-user, split: {new: 20%, old: 80%}}
  - {name: gone, when: path == '/g', to: old}
  - {name: ramp, split: {new: 5%, old: 95%}}
",
    "rules:
  - {name: testers, when: header.x-group == 'tests', to: new}
  - {name: keyed, when: path == '/k', key: header.x-user, split: {new: 50%, old: 50%}}
  - {name: gone, when: path == '/g', respond: 410}
  - {name: ramp, split: {new: 15%, old: 85%}}
",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_measures_what_diff_says_of_the_same_requests() {
    let rules = KEYED.map(|rules| HEAD.replace("rules:\n", rules));
    let site = Site::new(&INSTANCES, &rules[0]).await;
    let (candidate, log, config) = (site.path("candidate.yaml"), site.path("access.jsonl"), site.path("proxy.yaml"));
    replace(&candidate, &rules[1]);
    std::fs::write(&config, format!("access_log: {{path: {}}}\n", log.display())).unwrap();
    let proxy =
        site.proxy(&["--config", config.to_str().unwrap(), "--shadow-rules", candidate.to_str().unwrap()]).await;
    until("the candidate is beside the rules", async || shadow(&proxy).await["measured"].is_object()).await;

    let mut connection = None;
    for n in 0..400u32 {
        let path = ["/", "/k", "/g", "/"][n as usize % 4];
        let mut request = http::Request::get(path).header("host", "web.test").header("x-user", n % 60);
        if n % 8 == 0 {
            request = request.header("x-group", "test");
        }
        let request = request.body(http_body_util::Full::default()).unwrap();
        let answer = load::send(proxy.listen, request, &mut connection).await.unwrap();
        assert_eq!(answer.status(), 200);
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    }
    let lines = || std::fs::read_to_string(&log).map_or(0, |text| text.matches('\n').count());
    until("the log is whole", async || lines() == 400).await;
    let measured = shadow(&proxy).await["measured"].clone();

    let diff = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["diff", "--format", "json", "--rules"])
        .arg(site.rules())
        .arg("--with")
        .arg(&candidate)
        .arg("--catalog")
        .arg(site.catalog())
        .arg("--traffic")
        .arg(&log)
        .output()
        .unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stderr));
    let report: Value = serde_json::from_slice(&diff.stdout).unwrap();
    assert_eq!((&measured["requests"], &measured["skipped"]), (&report["requests"], &0.into()), "{measured}");
    assert_eq!(measured["newly_unrouted"], report["newly_unrouted"]);
    let [ours, theirs] = [&measured, &report].map(|report| report["moved"].as_f64().unwrap());
    assert!(theirs > 0.2 && (ours - theirs).abs() < 1e-6, "{ours} and {theirs}: {measured}");
}

/// Every whole line is a traffic line that `replay` reads.
fn assert_the_lines_can_be_replayed(site: &Site, log: &std::path::Path) {
    let text = std::fs::read_to_string(log).unwrap();
    let whole = &text[..=text.rfind('\n').unwrap()];
    std::fs::write(site.path("lines.jsonl"), whole).unwrap();
    let replay = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["replay", "--strict", "--format", "json", "--rules"])
        .arg(site.rules())
        .arg("--catalog")
        .arg(site.catalog())
        .arg("--traffic")
        .arg(site.path("lines.jsonl"))
        .output()
        .unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let report: Value = serde_json::from_slice(&replay.stdout).unwrap();
    assert_eq!(report["requests"].as_u64(), Some(whole.lines().count() as u64), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_shadow_rules_there_is_nothing_to_promote() {
    let site = Site::new(&INSTANCES, &ramp(5)).await;
    let proxy = site.proxy(&[]).await;
    assert_eq!(shadow(&proxy).await["configured"], false);
    let (status, refused) = admin_post(proxy.admin, "/v1/shadow/promote", r#"{"max_moved": "5%"}"#).await;
    assert_eq!((status, &refused["error"]), (409, &"there are no shadow rules to promote".into()));
}
