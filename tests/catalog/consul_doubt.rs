//! What a sick catalog says is not believed: nothing is ever removed by an error, by silence or in doubt.

use std::time::Duration;

use pointsman::catalog::Note;
use pointsman::catalog::consul::{Disk, Settings};
use pointsman::catalog::watch::keeper::Doubt;

use crate::scripted_consul::{Registration, ScriptedConsul};
use crate::subscriber::{SOON, Subscriber, held, settings};

/// A Consul with `web` on a, b and c, and a subscriber that has seen them.
async fn three(change: impl FnOnce(Settings) -> Settings) -> (ScriptedConsul, Subscriber) {
    let consul = ScriptedConsul::start().await;
    for (id, port) in [("a", 9001), ("b", 9002), ("c", 9003)] {
        consul.register(Registration::new("web", id, port));
    }
    let mut subscriber = Subscriber::start(change(settings(consul.url())), &["web"]);
    subscriber.until_ids("web", &["a", "b", "c"]).await;
    consul.wait_for_requests("/health/service/web?index", 1).await;
    (consul, subscriber)
}

fn quick_wait(settings: Settings) -> Settings {
    Settings { wait: Duration::from_secs(1), ..settings }
}

const ALL: &[&str] = &["a", "b", "c"];

#[tokio::test]
async fn errors_remove_nothing_and_the_catalog_is_followed_again_afterwards() {
    let (consul, mut subscriber) = three(|s| s).await;
    consul.fail_with(500, "No cluster leader");
    subscriber.until_counters(|counters| counters.server_errors >= 2).await;
    assert!(!subscriber.source().connected);
    let readiness = subscriber.running.status.readiness();
    assert!(
        readiness.ready && readiness.degraded && readiness.reasons[0].contains("No cluster leader"),
        "{readiness:?}"
    );
    subscriber.never_without("web", ALL, Duration::from_secs(1)).await;
    consul.heal();
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    assert!(subscriber.source().connected);
}

#[tokio::test]
async fn one_error_on_a_change_of_leader_is_healed_within_half_a_second() {
    let (consul, mut subscriber) = three(|s| s).await;
    consul.fail_next(2);
    consul.cut_connections();
    subscriber.until_counters(|counters| counters.failures >= 1).await;
    let began = tokio::time::Instant::now();
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_breaks_off_changes_nothing() {
    let (consul, mut subscriber) = three(|s| s).await;
    consul.cut_bodies();
    subscriber.until_counters(|counters| counters.failures >= 1).await;
    subscriber.never_without("web", ALL, Duration::from_millis(500)).await;
    consul.heal();
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
}

#[tokio::test]
async fn garbage_is_refused_and_a_garbage_element_costs_only_itself() {
    let (consul, mut subscriber) = three(|s| s).await;
    for body in ["{}", "[", "[] x", "<html></html>", r#"[1,2,{"Node":{}}]"#] {
        let before = subscriber.source().counters.failures;
        consul.garbage(body);
        subscriber.until_counters(|counters| counters.failures > before).await;
    }
    assert!(subscriber.service("web").failing.is_some_and(|why| why.contains("refused")));
    consul.heal();
    subscriber.until_counters(|_| subscriber.source().connected).await;
    // b's port cannot be used: b stays as it was, the others are followed.
    consul.register(Registration::new("web", "b", 9002).set("/Service/Port", 70_000.into()));
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    assert!(subscriber.source().counters.skipped >= 1);
}

#[tokio::test]
async fn a_restart_that_answers_nothing_is_held_and_the_services_come_back() {
    let (consul, mut subscriber) = three(|s| s).await;
    consul.restart();
    let state = subscriber.until("web", |state| held(state) == 3).await;
    assert!(matches!(state.note, Note::Held { why: Doubt::Broken | Doubt::IndexFell, .. }), "{:?}", state.note);
    subscriber.never_without("web", ALL, Duration::from_secs(3)).await;
    for (id, port) in [("a", 9001), ("b", 9002), ("c", 9003)] {
        consul.register(Registration::new("web", id, port));
    }
    subscriber.until("web", |state| state.note == Note::Trusted && state.instances.len() == 3).await;
}

#[tokio::test]
async fn a_restart_that_stays_empty_is_accepted_when_the_hold_is_over() {
    let (consul, mut subscriber) = three(|s| Settings { hold_max: Duration::from_secs(3), ..s }).await;
    consul.restart();
    subscriber.until("web", |state| held(state) == 3).await;
    subscriber.never_without("web", ALL, Duration::from_millis(2_000)).await;
    subscriber.until_ids("web", &[]).await;
    assert_eq!(subscriber.source().counters.accepted_after_hold, 3);
}

#[tokio::test]
async fn a_lower_index_with_a_small_loss_is_confirmed_by_a_second_reading() {
    let (consul, mut subscriber) = three(quick_wait).await;
    let old = consul.snapshot();
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    consul.wait_for_requests("/health/service/web?index", 2).await;
    consul.restore(old);
    subscriber.until("web", |state| held(state) == 1).await;
    assert!(subscriber.source().counters.lower_index >= 1);
    let began = tokio::time::Instant::now();
    subscriber.until_ids("web", ALL).await;
    assert!(began.elapsed() > Duration::from_millis(1_500) && began.elapsed() < SOON);
    assert_eq!(subscriber.source().counters.confirmed, 1);
}

#[tokio::test]
async fn a_server_that_lags_for_one_answer_leaves_no_doubt_behind() {
    let (consul, mut subscriber) = three(quick_wait).await;
    consul.lag_next();
    subscriber.until_counters(|counters| counters.lower_index == 1).await;
    consul.wait_for_requests("/health/service/web?index", 3).await;
    consul.deregister("web", "a");
    subscriber.until_ids("web", &["b", "c"]).await;
    let counters = subscriber.source().counters;
    assert_eq!((counters.held, counters.lower_index), (0, 1), "the loss is believed at once");
}

#[tokio::test]
async fn a_restored_snapshot_is_noticed_within_one_wait() {
    let (consul, mut subscriber) = three(quick_wait).await;
    let old = consul.snapshot();
    for n in 0..20 {
        consul.register(Registration::new("web", "d", 9100 + n));
    }
    subscriber.until("web", |state| state.instances.len() == 4).await;
    consul.restore(old);
    consul.register(Registration::new("web", "e", 9005));
    subscriber.until("web", |state| state.instances.iter().any(|one| &*one.id == "e")).await;
}

#[tokio::test]
async fn a_withdrawn_permission_is_alarmed_and_removes_nothing_until_accepted() {
    let (consul, mut subscriber) =
        three(|s| Settings { wait: Duration::from_secs(1), hold_max: Duration::from_secs(1), ..s }).await;
    consul.withdraw_permission();
    let state = subscriber.until("web", |state| held(state) == 3).await;
    assert_eq!(state.note, Note::Held { instances: 3, why: Doubt::Permission });
    subscriber.never_without("web", ALL, Duration::from_secs(4)).await;
    let readiness = subscriber.running.status.readiness();
    assert!(readiness.degraded && readiness.reasons.iter().any(|why| why.contains("permission")), "{readiness:?}");
    assert_eq!(subscriber.running.handle.accept("web"), 3);
    subscriber.until_ids("web", &[]).await;
}

#[tokio::test]
async fn an_empty_service_that_the_list_still_names_is_a_withdrawn_permission() {
    let (consul, mut subscriber) = three(|s| Settings { hold_max: Duration::from_secs(2), ..s }).await;
    consul.leader(false, 13_000);
    consul.hide_instances();
    let lost = Note::Held { instances: 3, why: Doubt::Permission };
    subscriber.until("web", |state| state.note == lost).await;
    subscriber.never_without("web", ALL, Duration::from_secs(4)).await;
    assert_eq!(subscriber.running.handle.accept("web"), 3);
    subscriber.until_ids("web", &[]).await;
}

#[tokio::test]
async fn a_withdrawn_permission_is_noticed_although_the_index_moved_meanwhile() {
    let (consul, mut subscriber) = three(quick_wait).await;
    let lists = consul.count("/v1/catalog/services");
    consul.withdraw_permission();
    // What wakes the watch is a check, or an instance that came or went: nothing at a higher index.
    consul.set_check("web", "a", "warning");
    let state = subscriber.until("web", |state| state.note != Note::Trusted || state.instances.is_empty()).await;
    assert_eq!(state.note, Note::Held { instances: 3, why: Doubt::Permission });
    assert!(consul.count("/v1/catalog/services") > lists, "it was read before the loss was judged");
    subscriber.never_without("web", ALL, Duration::from_secs(1)).await;
    consul.grant_permission();
    consul.set_check("web", "a", "passing");
    subscriber.until("web", |state| state.note == Note::Trusted && state.instances.len() == 3).await;
}

#[tokio::test]
async fn a_permission_that_returns_releases_what_was_held() {
    let (consul, mut subscriber) = three(quick_wait).await;
    consul.withdraw_permission();
    subscriber.until("web", |state| held(state) == 3).await;
    consul.grant_permission();
    subscriber.until("web", |state| state.note == Note::Trusted && state.instances.len() == 3).await;
}

#[tokio::test]
async fn a_refused_token_is_read_again_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first").expect("written");
    let with_token = file.clone();
    let (consul, mut subscriber) = three(|s| Settings { token_file: Some(with_token), ..s }).await;
    consul.require_token("second");
    subscriber.until_counters(|counters| counters.forbidden >= 1).await;
    subscriber.never_without("web", ALL, Duration::from_millis(300)).await;
    std::fs::write(&file, "second").expect("written");
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
}

#[tokio::test]
async fn an_agent_that_freezes_is_given_up_and_asked_again() {
    let (consul, mut subscriber) =
        three(|s| Settings { wait: Duration::from_secs(1), head_timeout: Duration::from_secs(1), ..s }).await;
    consul.freeze();
    subscriber.until_counters(|counters| counters.failures >= 2).await;
    assert!(subscriber.source().last_error.is_some_and(|error| error.contains("did not answer within")));
    subscriber.never_without("web", ALL, Duration::from_millis(300)).await;
    consul.heal();
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
}

#[tokio::test]
async fn a_catalog_that_comes_back_is_seen_within_two_seconds() {
    let (consul, mut subscriber) = three(|s| s).await;
    consul.stop();
    subscriber.never_without("web", ALL, Duration::from_secs(4)).await;
    consul.resume().await;
    consul.register(Registration::new("web", "d", 9004));
    let began = tokio::time::Instant::now();
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    assert!(began.elapsed() < Duration::from_millis(2_300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_agents_limit_of_connections_halves_ours_and_is_not_stormed() {
    let consul = ScriptedConsul::start().await;
    consul.limit_connections(3);
    for n in 0..8 {
        consul.register(Registration::new(&format!("s{n}"), "a", 9000 + n));
    }
    let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut subscriber = Subscriber::start(settings(consul.url()), &all);
    subscriber.until_counters(|counters| counters.congested >= 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = subscriber.source().counters.requests;
    assert!(asked <= 40, "{asked} requests within two seconds against a limit");
    consul.limit_connections(200);
    for name in &names {
        subscriber.within(Duration::from_secs(20), name, |state| state.instances.len() == 1).await;
    }
}

#[tokio::test]
async fn a_stale_answer_adds_and_removes_nothing_until_the_leader_says_so() {
    let (consul, mut subscriber) = three(|s| s).await;
    consul.leader(false, 13_000);
    consul.register(Registration::new("web", "d", 9004));
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    consul.wait_for_requests("/health/service/web", 4).await;
    let plain = consul.requests().iter().filter(|r| r.contains("/health/service/web") && !r.contains("stale")).count();
    assert!(plain >= 2, "read again with default consistency: {:?}", consul.requests());
}

#[tokio::test]
async fn answers_without_an_index_are_polled_slowly() {
    let consul = ScriptedConsul::start().await;
    consul.hide_index();
    consul.register(Registration::new("web", "a", 9001));
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(consul.requests().len() <= 4, "{:?}", consul.requests());
}

#[tokio::test]
async fn a_start_without_the_catalog_is_warm_from_the_copy_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk =
        Disk { path: Some(folder.path().join("copy.json")), load_after: Duration::from_millis(300), ..Disk::default() };
    let with_disk = disk.clone();
    let (consul, subscriber) = three(|s| Settings { disk: with_disk, ..s }).await;
    for _ in 0..500 {
        if disk.path.as_ref().is_some_and(|path| path.exists()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(disk.path.as_ref().is_some_and(|path| path.exists()), "the copy is written");
    subscriber.stop().await;
    consul.stop();

    let mut again = Subscriber::start(Settings { disk, ..settings(consul.url()) }, &["web"]);
    again.until_ids("web", ALL).await;
    let readiness = again.running.status.readiness();
    assert!(readiness.ready && readiness.degraded, "{readiness:?}");
    assert!(again.service("web").from_disk);
    // The catalog comes back without one of them: that one is held, then its loss is confirmed.
    consul.deregister("web", "c");
    consul.resume().await;
    again.until("web", |state| held(state) == 1).await;
    again.until_ids("web", &["a", "b"]).await;
}

#[tokio::test]
async fn rules_for_every_service_start_warm_with_all_that_the_copy_on_disk_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("copy.json");
    let disk = Disk { path: Some(path.clone()), load_after: Duration::from_millis(300), ..Disk::default() };
    let with_disk = disk.clone();
    let (consul, subscriber) = three(|s| Settings { disk: with_disk, ..s }).await;
    for _ in 0..500 {
        if path.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    subscriber.stop().await;
    consul.stop();

    let mut again = Subscriber::of_all(Settings { disk, hold_max: Duration::from_secs(1), ..settings(consul.url()) });
    again.until_ids("web", ALL).await;
    assert!(again.service("web").from_disk);
    let readiness = again.running.status.readiness();
    assert!(readiness.ready && readiness.degraded, "{readiness:?}");
    // The catalog comes back without the service: its loss is held back as any other, and then it is gone.
    ALL.iter().for_each(|id| consul.deregister("web", id));
    consul.resume().await;
    again.until_gone("web").await;
}

#[tokio::test]
async fn a_mass_removal_is_held_back_although_each_answer_is_trusted() {
    let consul = ScriptedConsul::start().await;
    for n in 0..12 {
        consul.register(Registration::new("web", &format!("i{n:02}"), 9000 + n));
    }
    let mut subscriber = Subscriber::start(settings(consul.url()), &["web"]);
    subscriber.until("web", |state| state.instances.len() == 12).await;
    consul.wait_for_requests("/health/service/web?index", 1).await;
    for n in 0..12 {
        consul.deregister("web", &format!("i{n:02}"));
    }
    let state = subscriber.until("web", |state| matches!(state.note, Note::Held { why: Doubt::Mass, .. })).await;
    assert_eq!(state.instances.len(), 12);
    assert!(subscriber.running.handle.accept("web") >= 10);
    subscriber.until_ids("web", &[]).await;
}

#[tokio::test]
async fn the_next_address_is_used_when_the_first_one_fails() {
    let (first, second) = (ScriptedConsul::start().await, ScriptedConsul::start().await);
    for consul in [&first, &second] {
        consul.register(Registration::new("web", "a", 9001));
    }
    let both = Settings { address: vec![first.url(), second.url()], ..Settings::default() };
    let mut subscriber = Subscriber::start(both, &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    assert_eq!(second.requests().len(), 0);
    first.stop();
    second.wait_for_requests("/health/service/web?index", 1).await;
    second.register(Registration::new("web", "b", 9002));
    subscriber.until_ids("web", &["a", "b"]).await;
    assert_eq!(subscriber.source().agent, second.url());
}
