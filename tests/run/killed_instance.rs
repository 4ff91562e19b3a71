//! An instance killed under load: nobody notices, it is ejected, and a probe lets it back in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::support::binary::Proxy;
use crate::support::load::{Load, send};
use crate::support::process::InstanceProcess;
use crate::support::site::{events, instance, ready, until};

const RULES: &str = "service: web\npools: {all: version == 1}\n\
                     eject: {base_ejection_time: 1s, max_ejection_time: 4s}\nrules: [{name: all, to: [all]}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_instance_costs_no_get_and_no_post_twice_and_a_probe_brings_it_back() {
    let mut instances: Vec<InstanceProcess> =
        ["web-1", "web-2", "web-3"].map(|id| InstanceProcess::start(id, &["version=1"])).into();
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = "services:\n  web:\n".to_owned();
    for (n, one) in instances.iter().enumerate() {
        let _ = writeln!(
            catalog,
            "    - {{id: web-{}, address: 127.0.0.1, port: {}, labels: {{version: 1}}}}",
            n + 1,
            one.addr.port()
        );
    }
    let (catalog_file, rules_file) = (folder.path().join("catalog.yaml"), folder.path().join("web.yaml"));
    std::fs::write(&catalog_file, catalog).unwrap();
    std::fs::write(&rules_file, RULES).unwrap();
    let proxy = Proxy::start(&["--catalog", catalog_file.to_str().unwrap(), "--rules", rules_file.to_str().unwrap()]);
    ready(proxy.admin).await;

    let load = Load::start(proxy.listen, "web.test", 400);
    let stop = Arc::new(AtomicBool::new(false));
    let posting = tokio::spawn(posts(proxy.listen, Arc::clone(&stop)));
    until("everybody answers", async || load.bodies().len() == 3).await;

    for round in 1..=2 {
        let killed = Instant::now();
        instances[0].kill();
        until("it is ejected", async || events(proxy.admin, "ejected", "web-1").await.len() >= round).await;
        println!("round {round}: ejected after {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
        let good = load.good();
        until("the others go on", async || load.good() > good + 50).await;
        instances[0].start_again();
        let back =
            until("a probe readmits it", async || events(proxy.admin, "readmitted", "web-1").await.len() >= round)
                .await;
        println!("round {round}: readmitted {back:?} after its return");
        assert_eq!(instance(proxy.admin, "web", "web-1").await["health"]["state"], "healthy");
        let before = load.bodies()["web-1 version=1"];
        until("it answers again", async || load.bodies()["web-1 version=1"] > before + 10).await;
    }

    let tally = load.stop().await;
    stop.store(true, Ordering::Relaxed);
    let answered = posting.await.unwrap();
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
    // What an instance says comes to us by a thread of its own.
    until("every POST that was answered is told", async || {
        let told: BTreeSet<String> = instances.iter().flat_map(InstanceProcess::posts).collect();
        answered.iter().all(|(id, status)| *status != 200 || told.contains(id))
    })
    .await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for id in instances.iter().flat_map(InstanceProcess::posts) {
        *seen.entry(id).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    let (good, failed): (Vec<_>, Vec<_>) = answered.iter().partition(|(_, status)| **status == 200);
    assert!(good.len() > 100 && good.iter().all(|(id, _)| seen.contains_key(*id)), "{} good", good.len());
    assert!(failed.len() <= 4, "only what was under way at a kill may fail: {failed:?}");
    println!("GETs: {} good, slowest {:?}; POSTs: {} good, failed {failed:?}", tally.good, tally.slowest, good.len());
}

/// About fifty POSTs a second with ids of their own, one at a time; by id its status, 0 without an answer.
async fn posts(to: SocketAddr, stop: Arc<AtomicBool>) -> BTreeMap<String, u16> {
    let (mut answered, mut connection) = (BTreeMap::new(), None);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for n in 0..5_000 {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("p{n}");
        let body = Full::new(Bytes::from(format!("order {n}")));
        let request = Request::post("/orders").header("host", "web.test").header("x-id", &id).body(body).unwrap();
        let status = match send(to, request, &mut connection).await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let whole = answer.into_body().collect().await.is_ok();
                if whole { status } else { 0 }
            }
            Err(_) => 0,
        };
        if status != 200 {
            connection = None;
        }
        answered.insert(id, status);
    }
    answered
}
