//! Active checks: a verdict without any traffic, and its end when nobody checks any more.

use serde_json::Value;

use crate::support::binary::Proxy;
use crate::support::site::{Site, admin_get, until};

const CHECKED: &str = "service: web
pools: {all: version == 1.2}
check: {http: /health, interval: 200ms, timeout: 500ms, rise: 1, fall: 2}
rules: [{name: all, to: [all]}]
";
const UNCHECKED: &str = "service: web\npools: {all: version == 1.2}\nrules: [{name: all, to: [all]}]\n";

async fn instance(proxy: &Proxy, id: &str) -> Value {
    let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
    let all = table["services"][0]["instances"].as_array().unwrap();
    all.iter().find(|instance| instance["id"] == id).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_finds_a_dead_instance_without_traffic_and_its_return() {
    let mut site = Site::new(&["web-1 version=1.2", "web-2 version=1.2"], CHECKED).await;
    let proxy = site.proxy(&[]).await;
    until("both pass", async || instance(&proxy, "web-2").await["check"] == "passing").await;

    site.instances.get_mut("web-2").unwrap().stop();
    until("the dead one fails", async || instance(&proxy, "web-2").await["check"] == "failing").await;
    assert_eq!(instance(&proxy, "web-2").await["available"], false);
    assert_eq!(instance(&proxy, "web-1").await["available"], true);

    site.instances.get_mut("web-2").unwrap().restart().unwrap();
    until("it passes again", async || instance(&proxy, "web-2").await["check"] == "passing").await;
    until("it takes traffic again", async || instance(&proxy, "web-2").await["available"] == true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_ends_with_the_check_that_gave_it() {
    let mut site = Site::new(&["web-1 version=1.2", "web-2 version=1.2"], CHECKED).await;
    let proxy = site.proxy(&[]).await;
    site.instances.get_mut("web-2").unwrap().stop();
    until("the dead one fails", async || instance(&proxy, "web-2").await["check"] == "failing").await;
    site.write_rules(UNCHECKED);
    until("nobody says it fails", async || instance(&proxy, "web-2").await["check"] == "unknown").await;
}
