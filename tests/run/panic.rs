//! Panic: opted in, after everything else, counted; operators are obeyed.

use std::process::Command;

use crate::fleet::Fleet;
use crate::support::faulty::Mode;
use crate::support::load::get;
use crate::support::site::{admin_post, events, until};

fn rules(panic: &str) -> String {
    format!(
        "service: web\npools: {{all: {{select: version exists, max_ejection_percent: 100%, min_routable: 0{panic}}}}}\n\
         eject: {{base_ejection_time: 300s}}\nretry: {{attempts: 1}}\nrules: [{{name: all, to: [all]}}]\nelse: 418\n"
    )
}

/// Three instances, all ejected, that have become well since.
async fn all_ejected(panic: &str) -> Fleet {
    let fleet = Fleet::new(&["version: 1"; 3], &rules(panic), &[], 200).await;
    fleet.turn(0..3, Mode::Fails(500));
    until("nobody is routable", async || fleet.pool().await["routable"] == 0).await;
    fleet.turn(0..3, Mode::Well);
    fleet
}

async fn picks(fleet: &Fleet) -> u64 {
    let admin = fleet.proxy.admin;
    let (_, text) = get(admin, &admin.to_string(), "/metrics", &mut None).await.unwrap();
    let line = text.lines().find(|line| line.starts_with("pointsman_panic_picks_total{"));
    line.map_or(0, |line| {
        assert!(line.contains("service=\"web\",pool=\"all\""), "{line}");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_opted_in_serves_by_anybody_but_whom_an_operator_drained() {
    let fleet = all_ejected(", panic: any").await;
    let before = fleet.load.good();
    until("requests are served in panic", async || fleet.load.good() > before + 60).await;
    assert!(picks(&fleet).await >= 60, "each is counted");
    let events = events(fleet.proxy.admin, "panic_routing", "").await;
    assert_eq!(events.len(), 1, "told once: {events:?}");
    assert!(events[0]["reason"].as_str().is_some_and(|reason| reason.starts_with("pool all has nobody routable")));
    let told = explained(&fleet);
    assert!(told.contains("whatever its health"), "{told}");

    let (status, _) = admin_post(fleet.proxy.admin, "/v1/instances/web/web-0/drain", "").await;
    assert_eq!(status, 200);
    let (drained, good) = (fleet.good(0..1), fleet.load.good());
    until("the others serve", async || fleet.load.good() > good + 100).await;
    assert!(fleet.good(0..1) <= drained + 4, "drained means drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_the_last_resort_answers_and_fail_comes_before_that() {
    for (panic, status) in [("", 418), (", panic: fail", 503)] {
        let fleet = all_ejected(panic).await;
        let (got, _) = get(fleet.proxy.listen, "web.test", "/", &mut None).await.unwrap();
        assert_eq!((got, picks(&fleet).await), (status, 0), "{panic:?}");
    }
}

/// What the running proxy says of a request.
fn explained(fleet: &Fleet) -> String {
    let admin = fleet.proxy.admin.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["explain", "--admin", &admin, "GET", "http://web.test/"])
        .output()
        .expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
