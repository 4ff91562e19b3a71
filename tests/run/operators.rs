//! Operators' actions over the real admin listener, and what the guard holds until one of them accepts it.

use std::time::Duration;

use crate::scripted_consul::{Registration, ScriptedConsul};
use crate::support::binary::Proxy;
use crate::support::load::{Load, get};
use crate::support::site::{Site, admin_get, admin_post, events, instance, ready, replace, until};

const RULES: &str = "service: web\npools: {all: version == 1}\nrules: [{name: all, to: [all]}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_eject_readmit_drain_and_undrain() {
    let site = Site::new(&["web-1 version=1", "web-2 version=1"], RULES).await;
    let proxy = site.proxy(&[]).await;
    let load = Load::start(proxy.listen, "web.test", 200);
    let of = |id: &str| load.bodies().get(&format!("{id} version=1")).copied().unwrap_or(0);
    until("both answer", async || of("web-1") > 5 && of("web-2") > 5).await;

    for (away, back, event) in [("eject", "readmit", "ejected"), ("drain", "undrain", "drained")] {
        let (status, said) = admin_post(proxy.admin, &format!("/v1/instances/web/web-1/{away}"), "{}").await;
        assert_eq!((status, &said["changed"]), (200, &true.into()), "{said}");
        let took = until("it is out of the routing", async || {
            let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
            table["services"][0]["files"][0]["pools"][0]["routable"] == 1
        })
        .await;
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(events(proxy.admin, event, "web-1").await.len(), 1);
        // What was picked just before may still be under way.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (gone, other) = (of("web-1"), of("web-2"));
        until("the other one goes on alone", async || of("web-2") > other + 40).await;
        assert_eq!(of("web-1"), gone, "{away}");
        let (status, said) = admin_post(proxy.admin, &format!("/v1/instances/web/web-1/{back}"), "").await;
        assert_eq!((status, &said["changed"]), (200, &true.into()), "{said}");
        until("it takes traffic again", async || of("web-1") > gone + 5).await;
        assert_eq!(instance(proxy.admin, "web", "web-1").await["available"], true);
    }
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);

    for (path, body, wanted) in [
        ("/v1/instances/web/nobody/eject", "{}", 404),
        ("/v1/instances/nothing/web-1/eject", "{}", 404),
        ("/v1/instances/web/web-1/explode", "{}", 404),
        ("/v1/instances/web/web-1/eject", "{\"for\": \"soon\"}", 400),
        ("/v1/instances/web/web-1/eject", "{", 400),
        ("/v1/catalog/web/accept", "{}", 409),
        ("/v1/catalog/nothing/accept", "{}", 404),
    ] {
        let (status, said) = admin_post(proxy.admin, path, body).await;
        assert_eq!(status, wanted, "{path} {body}: {said}");
        assert!(said["error"].as_str().is_some_and(|words| words.len() > 10), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_side_is_not_reached_through_the_proxy_nor_by_another_sites_page() {
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let proxy = site.proxy(&[]).await;
    let (_, body) = get(proxy.listen, "web.test", "/v1/table", &mut None).await.unwrap();
    assert!(body.starts_with("web-1 "), "{body}");
    let (status, _) = get(proxy.admin, "rebound.example", "/v1/table", &mut None).await.unwrap();
    assert_eq!(status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mass_removal_is_held_until_an_operator_accepts_it() {
    let ids: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let site = Site::new(&ids.iter().map(String::as_str).collect::<Vec<_>>(), RULES).await;
    let consul = ScriptedConsul::start().await;
    for (id, instance) in &site.instances {
        consul.register(Registration::new("web", id, instance.addr.port()).meta("version", "1"));
    }
    let proxy = Proxy::start(&["--consul", &consul.url(), "--rules", site.rules().to_str().unwrap()]);
    ready(proxy.admin).await;
    let load = Load::start(proxy.listen, "web.test", 200);
    until("it answers", async || load.good() > 20).await;
    for id in &ids[..15] {
        consul.deregister("web", id);
    }
    until("the removal is held", async || !events(proxy.admin, "catalog_held", "").await.is_empty()).await;
    until("everybody is in the routing", async || known(&proxy).await == 20).await;
    let (_, said) = admin_get(proxy.admin, "/ready").await.unwrap();
    assert!(said["degraded"] == true && said["reasons"].to_string().contains("web"), "{said}");
    println!("held: {}", said["reasons"]);

    let (status, said) = admin_post(proxy.admin, "/v1/catalog/web/accept", "{}").await;
    assert_eq!((status, said["released"].as_u64()), (200, Some(15)), "{said}");
    until("the held ones are gone", async || known(&proxy).await == 5).await;
    until("readiness knows", async || admin_get(proxy.admin, "/ready").await.unwrap().1["degraded"] == false).await;
    until("it is told", async || !events(proxy.admin, "catalog_accepted", "").await.is_empty()).await;
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

async fn known(proxy: &Proxy) -> usize {
    let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
    table["services"][0]["instances"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_catalog_answers_requests_are_told_to_come_again_and_the_copy_on_disk_warms_the_next_start() {
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let port = site.instances["web-1"].addr.port();
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "web-1", port).meta("version", "1"));
    consul.stop();
    let config = site.path("pointsman.yaml");
    replace(
        &config,
        &format!(
            "catalog: {{consul: {{address: {}, disk: {{path: {}, after: 300ms, interval: 100ms}}}}}}\nrules: {}\n",
            consul.url(),
            site.path("copy").display(),
            site.rules().display()
        ),
    );
    let start = || Proxy::start(&["--config", config.to_str().unwrap()]);

    let proxy = start();
    let mut connection = None;
    let request = http::Request::get("/").header("host", "web.test").body(http_body_util::Full::default()).unwrap();
    let answer = crate::support::load::send(proxy.listen, request, &mut connection).await.unwrap();
    let field = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!((answer.status().as_u16(), field("x-pointsman-error")), (503, Some("not_ready")));
    assert_eq!(field("retry-after"), Some("1"));
    let (status, said) = admin_get(proxy.admin, "/ready").await.unwrap();
    assert_eq!((status, &said["ready"]), (503, &false.into()), "{said}");
    println!("not ready: {}", said["reasons"]);
    consul.resume().await;
    ready(proxy.admin).await;
    assert_eq!(get(proxy.listen, "web.test", "/", &mut None).await.unwrap().0, 200);
    until("there is a copy on disk", async || site.path("copy").exists()).await;
    drop(proxy);

    consul.stop();
    let proxy = start();
    ready(proxy.admin).await;
    let (_, said) = admin_get(proxy.admin, "/ready").await.unwrap();
    assert!(said["degraded"] == true && said["reasons"].to_string().contains("disk"), "{said}");
    println!("warm: {}", said["reasons"]);
    assert_eq!(get(proxy.listen, "web.test", "/", &mut None).await.unwrap().0, 200);
    consul.resume().await;
    until("the catalog is believed again", async || {
        admin_get(proxy.admin, "/ready").await.unwrap().1["degraded"] == false
    })
    .await;
}
