//! A pool whose last instance was ejected gets its probe from requests that pass it over.

use std::time::Duration;

use crate::support::load::{self, Load};
use crate::support::scripted_instance::{ScriptedInstance, catalog};
use crate::support::site::{Site, instance, replace, until};

const POOLS: &str = "service: web
pools: {gray: version == 1.3, stable: version == 1.2}
eject: {consecutive_5xx: 2, base_ejection_time: 300ms}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_of_one_is_given_back_its_traffic_when_it_heals_and_no_request_is_lost() {
    let rules = format!("{POOLS}rules: [{{name: all, to: [gray, stable]}}]\n");
    let mut site = Site::new(&["web-1 version=1.2", "web-2 version=1.3"], &rules).await;
    let proxy = site.proxy(&[]).await;
    let load = Load::start(proxy.listen, "web.test", 200);
    let of = |load: &Load, id: &str| -> usize {
        load.bodies().iter().filter(|(body, _)| body.starts_with(id)).map(|(_, n)| n).sum()
    };
    until("the canary answers", async || of(&load, "web-2 ") > 20).await;
    assert_eq!(of(&load, "web-1 "), 0);

    site.instances.get_mut("web-2").unwrap().stop();
    until("stable stands in", async || of(&load, "web-1 ") > 50).await;
    let canary = of(&load, "web-2 ");

    site.instances.get_mut("web-2").unwrap().restart().unwrap();
    let took = until("the canary is back", async || of(&load, "web-2 ") > canary + 20).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_only_instance_was_ejected_comes_back_without_active_checks() {
    let rules = format!("{POOLS}rules: [{{name: all, to: [gray, stable]}}]\n");
    let mut site = Site::new(&["web-2 version=1.3"], &rules).await;
    let proxy = site.proxy(&[]).await;
    let load = Load::start(proxy.listen, "web.test", 100);
    until("it answers", async || load.good() > 20).await;
    site.instances.get_mut("web-2").unwrap().stop();
    until("it is ejected", async || proxy.log().contains("ejected")).await;
    site.instances.get_mut("web-2").unwrap().restart().unwrap();
    let good = load.good();
    until("it answers again", async || load.good() > good + 20).await;
    let tally = load.stop().await;
    assert!(tally.bad.iter().all(|(_, words)| words.starts_with("status 50")), "{:?}", tally.bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_a_service_that_sees_only_posts_is_taken_back() {
    let rules = "service: web
pools: {all: version == 1.2}
eject: {consecutive_5xx: 2, base_ejection_time: 300ms}
rules: [{name: all, to: [all]}]
";
    let site = Site::new(&[], rules).await;
    let both = [ScriptedInstance::start("web-1").await, ScriptedInstance::start("web-2").await];
    replace(&site.catalog(), &catalog(&[("web-1", &both[0]), ("web-2", &both[1])]));
    let proxy = site.proxy(&[]).await;
    let post = async || {
        let request = http::Request::post("/").header("host", "web.test").body(Default::default()).unwrap();
        load::send(proxy.listen, request, &mut None).await.map(|answer| answer.status().as_u16())
    };
    both[1].answers(500, 0);
    until("it is ejected", async || {
        post().await.unwrap();
        instance(proxy.admin, "web", "web-2").await["health"]["state"] == "ejected"
    })
    .await;
    both[1].answers(200, 0);
    until("it is back", async || {
        assert_eq!(post().await.unwrap(), 200);
        instance(proxy.admin, "web", "web-2").await["health"]["state"] == "healthy"
    })
    .await;
}
