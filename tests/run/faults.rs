//! Instances that fail under load, in pools of 2 and of 10: nobody notices after the first second, and what heals is
//! given its traffic back.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::support::binary::Proxy;
use crate::support::faulty::{Faulty, Mode};
use crate::support::load::{Load, Tally};
use crate::support::site::{ready, until};

/// Requests a second.
const RATE: u32 = 200;

/// A fleet behind the built proxy, under load.
struct Site {
    fleet: Vec<Faulty>,
    proxy: Proxy,
    load: Load,
    _folder: tempfile::TempDir,
}

impl Site {
    /// So many instances; the even ones are version 2.
    async fn new(size: usize, rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut fleet = Vec::new();
        let mut catalog = "services:\n  web:\n".to_owned();
        for n in 0..size {
            let one = Faulty::start(&format!("web-{n}")).await;
            let (port, version) = (one.addr.port(), 2 - n % 2);
            let _ = writeln!(
                catalog,
                "    - {{id: web-{n}, address: 127.0.0.1, port: {port}, labels: {{version: {version}}}}}"
            );
            fleet.push(one);
        }
        let (catalog_file, rules_file) = (folder.path().join("catalog.yaml"), folder.path().join("web.yaml"));
        std::fs::write(&catalog_file, catalog).unwrap();
        std::fs::write(&rules_file, rules).unwrap();
        let proxy =
            Proxy::start(&["--catalog", catalog_file.to_str().unwrap(), "--rules", rules_file.to_str().unwrap()]);
        ready(proxy.admin).await;
        let load = Load::start(proxy.listen, "web.test", RATE);
        until("everybody answers", async || load.bodies().len() == size).await;
        Self { fleet, proxy, load, _folder: folder }
    }

    /// Waits until so many more requests were answered well.
    async fn served(&self, more: usize) {
        let good = self.load.good();
        until("requests go on being served", async || self.load.good() >= good + more).await;
    }

    /// Waits until an instance answers well again.
    async fn answers(&self, n: usize) {
        let before = self.load.bodies()[&format!("web-{n}")];
        until("it has its traffic back", async || self.load.bodies()[&format!("web-{n}")] > before + 10).await;
    }
}

/// What failed later than a second after the fault began.
fn late(tally: &Tally, began: Duration) -> Vec<&(Duration, String)> {
    tally.bad.iter().filter(|(at, _)| *at > began + Duration::from_secs(1)).collect()
}

const RULES: &str = "service: web\npools: {all: version exists}\n\
                     eject: {base_ejection_time: 1s, max_ejection_time: 2s}\nrules: [{name: all, to: [all]}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_instance_costs_nothing_and_comes_back() {
    for size in [2, 10] {
        let site = Site::new(size, RULES).await;
        site.fleet[0].turn(Mode::Dead);
        site.served(400).await;
        site.fleet[0].turn(Mode::Well);
        site.answers(0).await;
        let tally = site.load.stop().await;
        assert!(tally.bad.is_empty(), "{size}: {:?}; {}", tally.bad, site.proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_instance_costs_nothing() {
    for size in [2, 10] {
        let site = Site::new(size, RULES).await;
        for _ in 0..4 {
            site.fleet[0].turn(Mode::Dead);
            site.served(80).await;
            site.fleet[0].turn(Mode::Well);
            site.served(80).await;
        }
        site.answers(0).await;
        let tally = site.load.stop().await;
        assert!(tally.bad.is_empty(), "{size}: {:?}; {}", tally.bad, site.proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_answers_500_at_once_is_out_within_a_second_and_no_probe_costs_a_client_anything() {
    for size in [2, 10] {
        let site = Site::new(size, RULES).await;
        let start = Instant::now();
        let before = site.load.good();
        site.fleet[0].turn(Mode::Fails(500));
        // Long enough for probes to fail.
        site.served(900).await;
        let hits = site.fleet[0].hits();
        site.fleet[0].turn(Mode::Well);
        site.answers(0).await;
        let tally = site.load.stop().await;
        let began = tally.bad.first().map_or(Duration::ZERO, |(at, _)| *at);
        assert!(late(&tally, began).is_empty(), "{size}: {:?}; {}", tally.bad, site.proxy.log());
        assert!(tally.bad.len() <= 12, "{size}: {:?}", tally.bad);
        println!("{size}: {} failed, {hits} tries, {before} before, {:?}", tally.bad.len(), start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_instance_gets_little_where_cost_is_counted() {
    let rules = RULES.replace("eject:", "balance: ewma\neject:");
    for size in [2, 10] {
        let site = Site::new(size, &rules).await;
        // So slow that a pause of the machine during somebody else's answer does not look like it.
        site.fleet[0].turn(Mode::Slow(Duration::from_millis(1_500)));
        site.served(50).await;
        let (hits, good) = (site.fleet[0].hits(), site.load.good());
        site.served(400).await;
        let (slow, all) = (site.fleet[0].hits() - hits, site.load.good() - good);
        assert!(slow * size * 4 < all, "{size}: {slow} of {all} went to the slow one");
        let tally = site.load.stop().await;
        assert!(tally.bad.is_empty(), "{size}: {:?}", tally.bad);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_is_all_bad_gives_its_half_to_stable_and_gets_it_back() {
    let rules = "service: web\npools: {stable: version == 1, canary: version == 2}\n\
                 eject: {base_ejection_time: 1s, max_ejection_time: 1s}\n\
                 rules: [{name: half, split: {canary: 50%, stable: 50%}}]\n";
    for size in [2, 10] {
        let site = Site::new(size, rules).await;
        let canaries = || site.fleet.iter().step_by(2);
        canaries().for_each(|one| one.turn(Mode::Fails(503)));
        site.served(600).await;
        canaries().for_each(|one| one.turn(Mode::Well));
        for n in (0..size).step_by(2) {
            site.answers(n).await;
        }
        let before = site.load.bodies();
        site.served(300).await;
        let after = site.load.bodies();
        let gained = |n: usize| after[&format!("web-{n}")] - before[&format!("web-{n}")];
        let (back, all) = ((0..size).step_by(2).map(gained).sum::<usize>(), (0..size).map(gained).sum::<usize>());
        assert!(back * 10 > all * 3 && back * 10 < all * 7, "{size}: the canary has {back} of {all} again");
        let tally = site.load.stop().await;
        assert!(tally.bad.is_empty(), "{size}: {:?}; {}", tally.bad, site.proxy.log());
    }
}
