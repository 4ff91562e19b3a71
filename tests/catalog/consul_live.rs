//! What a healthy catalog says is published, soon and at little cost.

use std::time::Duration;

use pointsman::catalog::Surroundings;
use pointsman::catalog::consul::{Gzip, Select, Settings};
use pointsman::catalog::status::Followed;
use pointsman::engine::instance::{Status, Weights};

use crate::scripted_consul::{Registration, ScriptedConsul};
use crate::subscriber::{SOON, Subscriber, ids, settings, wanted};

#[tokio::test]
async fn changes_are_seen_as_they_happen() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001).meta("version", "1.2").tag("env=prod").weights(10, 1));
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    let state = subscriber.until_ids("web", &["a"]).await;
    let first = state.instances[0].clone();
    assert_eq!((first.labels.value("version"), first.labels.value("env")), (Some("1.2"), Some("prod")));
    assert_eq!(first.weights, Weights { passing: 10, warning: 1 });

    let registered = tokio::time::Instant::now();
    consul.register(Registration::new("web", "b", 9002));
    let state = subscriber.until_ids("web", &["a", "b"]).await;
    assert!(registered.elapsed() < Duration::from_millis(300), "{:?}", registered.elapsed());
    assert!(state.instances.iter().any(|one| std::sync::Arc::ptr_eq(one, &first)), "what did not change is the same");

    consul.set_check("web", "b", "critical");
    subscriber
        .until("web", |state| state.instances.iter().any(|i| &*i.id == "b" && i.status == Status::Critical))
        .await;
    consul.deregister("web", "b");
    subscriber.until_ids("web", &["a"]).await;
    consul.deregister("web", "a");
    subscriber.until_ids("web", &[]).await;
    assert!(subscriber.running.status.readiness().ready);
    subscriber.stop().await;
}

#[tokio::test]
async fn a_quiet_catalog_costs_one_request_a_wait() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001));
    let quick = Settings { wait: Duration::from_secs(1), ..settings(consul.url()) };
    let mut subscriber = Subscriber::start(quick, &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    for _ in 0..20 {
        consul.other_write();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let asked = consul.count("/health/service/web");
    assert!((3..=6).contains(&asked), "{asked}: {:?}", consul.requests());
    subscriber.silent(Duration::from_millis(100)).await;
    assert!(subscriber.service("web").idle_wakes >= 2);
}

#[tokio::test]
async fn a_busy_service_is_read_once_a_second_and_its_last_state_arrives() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001).meta("n", "0"));
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    for n in 1..=100 {
        consul.register(Registration::new("web", "a", 9001).meta("n", &n.to_string()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    subscriber.until("web", |state| state.instances[0].labels.value("n") == Some("100")).await;
    let asked = consul.count("/health/service/web");
    assert!(asked <= 5 + 4 + 2, "{asked} requests for a hundred changes in two seconds");
}

#[tokio::test]
async fn a_name_that_is_not_in_the_list_is_not_watched_until_it_appears() {
    let consul = ScriptedConsul::start().await;
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    subscriber.until_ids("web", &[]).await;
    consul.wait_for_requests("/catalog/services?index", 1).await;
    for n in 0..20 {
        consul.register(Registration::new("other", &format!("o{n}"), 9000 + n));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(consul.count("/health/service/web") <= 3, "it woke with strangers: {:?}", consul.requests());
    consul.register(Registration::new("web", "a", 9001));
    subscriber.until_ids("web", &["a"]).await;
    assert_eq!(consul.count("/health/service/other"), 0);
}

#[tokio::test]
async fn without_the_list_each_name_has_its_own_watch() {
    let consul = ScriptedConsul::start().await;
    consul.forbid_list();
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    subscriber.until_ids("web", &[]).await;
    consul.register(Registration::new("web", "a", 9001));
    subscriber.until_ids("web", &["a"]).await;
}

#[tokio::test]
async fn selected_services_come_and_go_with_the_list() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("shop-web", "a", 9001));
    consul.register(Registration::new("bank-web", "b", 9002));
    let select = Select { prefixes: vec!["shop-".to_owned()], ..Select::default() };
    let mut subscriber = Subscriber::start(Settings { select, ..settings(consul.url()) }, &[]);
    subscriber.until_ids("shop-web", &["a"]).await;
    consul.register(Registration::new("shop-api", "c", 9003));
    subscriber.until_ids("shop-api", &["c"]).await;
    assert_eq!(consul.count("/health/service/bank-web") + consul.count("/health/service/consul"), 0);
    consul.deregister("shop-api", "c");
    subscriber.until_gone("shop-api").await;
}

#[tokio::test]
async fn where_rules_are_for_every_service_each_of_the_list_is_followed_while_it_is_there() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001));
    consul.register(Registration::new("api", "b", 9002));
    let mut subscriber = Subscriber::of_all(settings(consul.url()));
    subscriber.until_ids("web", &["a"]).await;
    subscriber.until_ids("api", &["b"]).await;
    assert!(subscriber.running.status.readiness().ready);
    consul.register(Registration::new("new", "c", 9003));
    subscriber.until_ids("new", &["c"]).await;
    consul.deregister("new", "c");
    subscriber.until_gone("new").await;
    assert_eq!(consul.count("/health/service/consul"), 0);
    // The file for every service is taken away, and another one names a service.
    subscriber.wanted.send_replace(wanted(&["web"]));
    subscriber.until_gone("api").await;
}

#[tokio::test]
async fn a_changed_rule_set_keeps_the_watches_that_stay() {
    let consul = ScriptedConsul::start().await;
    for (service, id, port) in [("web", "a", 9001), ("api", "b", 9002), ("old", "c", 9003)] {
        consul.register(Registration::new(service, id, port));
    }
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web", "old"]);
    subscriber.until_ids("web", &["a"]).await;
    subscriber.until_ids("old", &["c"]).await;
    consul.wait_for_requests("/health/service/web?index", 1).await;
    let before = consul.count("/health/service/web");
    subscriber.wanted.send_replace(wanted(&["web", "api"]));
    subscriber.until_ids("api", &["b"]).await;
    subscriber.until_gone("old").await;
    assert_eq!(consul.count("/health/service/web"), before, "the watch that stays was not touched");
}

#[tokio::test]
async fn compressed_answers_are_read() {
    let consul = ScriptedConsul::start().await;
    for n in 0..200 {
        consul.register(Registration::new("web", &format!("i{n:03}"), 9000 + n));
    }
    let mut subscriber = Subscriber::start(Settings { gzip: Gzip::Always, ..settings(consul.url()) }, &["web"]);
    let state = subscriber.until("web", |state| state.instances.len() == 200).await;
    assert_eq!(ids(&state)[199], "i199");
    let bytes = subscriber.source().counters.bytes;
    assert!(bytes < 40_000, "{bytes} bytes for 200 instances are not compressed");
}

#[tokio::test]
async fn an_instance_at_our_own_listener_is_dropped() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "us", 8080));
    consul.register(Registration::new("web", "front", 8081).meta("pointsman-id", "p1").meta("pointsman-front", "true"));
    consul.register(Registration::new("web", "a", 9001));
    let surroundings = Surroundings { listeners: vec!["0.0.0.0:8080".parse().expect("an address")] };
    let mut subscriber = Subscriber::among(settings(consul.url()), &["web"], &surroundings);
    subscriber.until_ids("web", &["a"]).await;
}

#[tokio::test]
async fn more_services_than_connections_are_read_in_turn() {
    let consul = ScriptedConsul::start().await;
    let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        consul.register(Registration::new(name, "a", 9000 + n as u16));
    }
    let narrow = Settings { max_connections: 8, ..settings(consul.url()) };
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut subscriber = Subscriber::start(narrow, &all);
    for name in &names {
        subscriber.until_ids(name, &["a"]).await;
    }
    for name in &names {
        consul.register(Registration::new(name, "b", 9100));
    }
    for name in &names {
        subscriber.until_ids(name, &["a", "b"]).await;
    }
    assert!(consul.slots().1 <= 8, "{} connections", consul.slots().1);
    let rotated = names.iter().filter(|name| subscriber.service(name).followed == Followed::Rotated).count();
    assert_eq!(rotated, 8, "four connections are kept for reads that answer at once");
}

#[tokio::test]
async fn a_source_that_is_not_wanted_any_more_stops_asking() {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001));
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    subscriber.stop().await;
    let asked = consul.requests().len();
    consul.register(Registration::new("web", "b", 9002));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(consul.requests().len(), asked);
    assert!(SOON > Duration::ZERO);
}

#[tokio::test]
async fn the_catalog_command_writes_a_file_that_reads_back() {
    use pointsman::cli::catalog::{Asked, catalog};
    use pointsman::engine::diagnostic::Source;
    use pointsman::engine::format::catalog_file;

    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001).meta("version", "1.10").tag("http").weights(10, 1));
    consul.register(Registration::new("api", "b", 9002));
    consul.set_check("api", "b", "warning");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let asked = Asked { settings: settings(consul.url()), services: Vec::new() };
    assert_eq!(catalog(&asked, &mut out, &mut err).await.expect("memory"), 0);
    let (file, findings) = catalog_file::parse(&Source::new("out", String::from_utf8(out).expect("text")));
    assert!(!findings.has_errors(), "{}", findings.render());
    let [(api, apis), (web, webs)] = &file.services[..] else { panic!("two services: {file:?}") };
    assert_eq!((&**api, apis[0].status, &**web), ("api", Status::Warning, "web"));
    assert_eq!((webs[0].labels.value("version"), webs[0].weights), (Some("1.10"), Weights { passing: 10, warning: 1 }));

    consul.stop();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(catalog(&asked, &mut out, &mut err).await.expect("memory"), 1);
    assert!(out.is_empty() && String::from_utf8_lossy(&err).contains("cannot connect"));
}
