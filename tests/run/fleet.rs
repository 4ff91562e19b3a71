//! Instances that the test makes fail, a catalog file that it rewrites, and the built proxy in front, under load.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::binary::Proxy;
use crate::support::faulty::{Faulty, Mode};
use crate::support::load::{Load, Tally};
use crate::support::site::{admin_get, ready, replace, until};

/// A fleet of `web` behind the proxy. Instance `n` is `web-n`, and that is what it answers.
pub struct Fleet {
    folder: tempfile::TempDir,
    pub instances: Vec<Faulty>,
    labels: Vec<String>,
    pub proxy: Proxy,
    pub load: Load,
    /// When the load began; the times of its tally count from here.
    began: Instant,
}

impl Fleet {
    /// One instance for each text of labels (`region: eu, zone: a`), all passing with a weight of 1.
    pub async fn new(labels: &[&str], rules: &str, flags: &[&str], per_second: u32) -> Self {
        Self::with(labels, rules, flags, per_second, |_| String::new()).await
    }

    /// The same with more keys for some, as in [`Fleet::catalog`].
    pub async fn with(
        labels: &[&str],
        rules: &str,
        flags: &[&str],
        per_second: u32,
        more: impl Fn(usize) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut instances = Vec::new();
        for n in 0..labels.len() {
            instances.push(Faulty::start(&format!("web-{n}")).await);
        }
        let (catalog, file) = (folder.path().join("catalog.yaml"), folder.path().join("web.yaml"));
        let labels: Vec<String> = labels.iter().map(|one| (*one).to_owned()).collect();
        std::fs::write(&catalog, catalog_text(&instances, &labels, more)).unwrap();
        std::fs::write(&file, rules).unwrap();
        let mut args = vec!["--catalog", catalog.to_str().unwrap(), "--rules", file.to_str().unwrap()];
        args.extend(flags);
        let proxy = Proxy::start(&args);
        ready(proxy.admin).await;
        let began = Instant::now();
        let load = Load::keyed(proxy.listen, "web.test", per_second);
        until("requests are served", async || load.good() >= 50).await;
        Self { folder, instances, labels, proxy, load, began }
    }

    /// Writes the catalog file anew, with more keys for some (`weight: 3, status: warning`).
    pub fn catalog(&self, more: impl Fn(usize) -> String) {
        replace(&self.folder.path().join("catalog.yaml"), &catalog_text(&self.instances, &self.labels, more));
    }

    pub fn turn(&self, who: Range<usize>, mode: Mode) {
        self.instances[who].iter().for_each(|one| one.turn(mode));
    }

    /// Since the load began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Good answers of these so far.
    pub fn good(&self, who: Range<usize>) -> usize {
        let bodies = self.load.bodies();
        who.filter_map(|n| bodies.get(&format!("web-{n}"))).sum()
    }

    /// The share of these in so many answers from now on.
    pub async fn share(&self, who: Range<usize>, of: usize) -> f64 {
        let (before, all) = (self.good(who.clone()), self.load.good());
        until("requests are served", async || self.load.good() >= all + of).await;
        (self.good(who) - before) as f64 / (self.load.good() - all) as f64
    }

    /// The loads of the only pool's levels by rank, as published.
    pub async fn loads(&self) -> BTreeMap<u64, u64> {
        let pool = self.pool().await;
        let levels = pool["levels"].as_array().cloned().unwrap_or_default();
        levels.iter().map(|level| (level["rank"].as_u64().unwrap(), level["load"].as_u64().unwrap())).collect()
    }

    /// The file's first pool, as published.
    pub async fn pool(&self) -> Value {
        let (_, table) = admin_get(self.proxy.admin, "/v1/table?service=web").await.unwrap();
        table["services"][0]["files"][0]["pools"][0].clone()
    }

    /// Waits until the levels' loads are these.
    pub async fn comes_to(&self, wanted: &[(u64, u64)]) {
        let wanted: BTreeMap<u64, u64> = wanted.iter().copied().collect();
        until(&format!("the levels' loads are {wanted:?}"), async || self.loads().await == wanted).await;
    }

    /// Ends the load and asserts that nothing failed but within a second of these moments.
    pub async fn nothing_failed_but_at(self, faults: &[Duration]) -> Tally {
        let tally = self.load.stop().await;
        let excused = |at: Duration| faults.iter().any(|fault| at >= *fault && at <= *fault + Duration::from_secs(1));
        let late: Vec<_> = tally.bad.iter().filter(|(at, _)| !excused(*at)).collect();
        assert!(late.is_empty(), "{late:?} with faults at {faults:?}; {}", self.proxy.log());
        tally
    }
}

fn catalog_text(instances: &[Faulty], labels: &[String], more: impl Fn(usize) -> String) -> String {
    let mut text = "services:\n  web:\n".to_owned();
    for (n, (one, labels)) in instances.iter().zip(labels).enumerate() {
        let (port, more) = (one.addr.port(), more(n));
        let comma = if more.is_empty() { "" } else { ", " };
        let _ = writeln!(
            text,
            "    - {{id: web-{n}, address: 127.0.0.1, port: {port}, labels: {{{labels}}}{comma}{more}}}"
        );
    }
    text
}
