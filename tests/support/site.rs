//! A folder with a catalog file and rules, and sample instances behind it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pointsman::cli::demo::instances::DemoInstance;
use serde_json::Value;

use super::binary::{ANY_PORTS, PATIENCE, Proxy};
use super::load;
use crate::ports::unused;

/// A catalog file, rule files and running instances; removed when dropped.
pub struct Site {
    folder: tempfile::TempDir,
    /// The instances, by id.
    pub instances: BTreeMap<String, DemoInstance>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

impl Site {
    /// Starts instances of `web` given as `id key=value key=value`, writes them into the catalog file, and the rules
    /// into `rules/web.yaml`.
    pub async fn new(instances: &[&str], rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rules")).unwrap();
        let mut site = Self { folder, instances: BTreeMap::new(), labels: BTreeMap::new() };
        for words in instances {
            let mut words = words.split(' ');
            let id = words.next().unwrap().to_owned();
            let labels: BTreeMap<String, String> =
                words.map(|w| w.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            // Nobody else is given its port while it is stopped.
            let instance = DemoInstance::start(&id, unused().port(), &labels).await.unwrap();
            site.instances.insert(id.clone(), instance);
            site.labels.insert(id, labels);
        }
        site.write_catalog(|_| true);
        site.write_rules(rules);
        site
    }

    /// Writes the catalog file with the instances that the caller wants in it, in one step.
    pub fn write_catalog(&self, wanted: impl Fn(&str) -> bool) {
        let mut text = "services:\n  web:\n".to_owned();
        for (id, instance) in self.instances.iter().filter(|(id, _)| wanted(id)) {
            let _ =
                writeln!(text, "    - {{id: {id}, address: {}, port: {},", instance.addr.ip(), instance.addr.port());
            let labels: Vec<String> = self.labels[id].iter().map(|(k, v)| format!("{k}: \"{v}\"")).collect();
            let _ = writeln!(text, "       labels: {{{}}}}}", labels.join(", "));
        }
        replace(&self.catalog(), &text);
    }

    /// Writes `rules/web.yaml` in one step.
    pub fn write_rules(&self, text: &str) {
        replace(&self.rules().join("web.yaml"), text);
    }

    /// The catalog file.
    pub fn catalog(&self) -> PathBuf {
        self.folder.path().join("catalog.yaml")
    }

    /// The rules' folder.
    pub fn rules(&self) -> PathBuf {
        self.folder.path().join("rules")
    }

    /// Any file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the proxy in front of it and waits until it is ready.
    pub async fn proxy(&self, more: &[&str]) -> Proxy {
        self.proxy_with(&[], more).await
    }

    /// The same with these variables in its environment.
    pub async fn proxy_with(&self, environment: &[(&str, &str)], more: &[&str]) -> Proxy {
        let (catalog, rules) = (self.catalog(), self.rules());
        let mut args = ANY_PORTS.to_vec();
        args.extend(["--catalog", catalog.to_str().unwrap(), "--rules", rules.to_str().unwrap()]);
        args.extend(more);
        let proxy = Proxy::start_in(environment, &args);
        ready(proxy.admin).await;
        proxy
    }
}

/// Writes a file in one step.
pub fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// Waits until the proxy says that it is ready.
pub async fn ready(admin: SocketAddr) {
    until("the proxy is ready", async || admin_get(admin, "/ready").await.is_ok_and(|(status, _)| status == 200)).await;
}

/// Waits for a condition that is seen from outside, looking every 10 ms, for at most [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// One answer of the admin side.
pub async fn admin_get(admin: SocketAddr, path: &str) -> Result<(u16, Value), String> {
    let (status, body) = load::get(admin, &admin.to_string(), path, &mut None).await?;
    Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
}

/// One action on the admin side, with a JSON body.
pub async fn admin_post(admin: SocketAddr, path: &str, body: &str) -> (u16, Value) {
    let request = http::Request::post(path)
        .header("host", admin.to_string())
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from(body.to_owned())))
        .unwrap();
    let answer = load::send(admin, request, &mut None).await.expect("the admin side answers");
    let status = answer.status().as_u16();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// An instance as `/v1/table` shows it; null when the service does not have it.
pub async fn instance(admin: SocketAddr, service: &str, id: &str) -> Value {
    let (_, table) = admin_get(admin, &format!("/v1/table?service={service}")).await.unwrap();
    let instances = table["services"][0]["instances"].as_array().cloned().unwrap_or_default();
    instances.into_iter().find(|one| one["id"] == id).unwrap_or(Value::Null)
}

/// The events of a kind that are about an instance; `""`: about none.
pub async fn events(admin: SocketAddr, kind: &str, id: &str) -> Vec<Value> {
    let (_, all) = admin_get(admin, "/v1/events?limit=1000").await.unwrap();
    let all = all["events"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|one| one["kind"] == kind && (id.is_empty() || one["instance"] == id)).collect()
}
