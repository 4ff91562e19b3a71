//! The subscriber and a real Consul.

use std::time::Duration;

use pointsman::catalog::Note;
use pointsman::catalog::consul::{Settings, read_once};
use pointsman::catalog::watch::keeper::Doubt;
use pointsman::engine::instance::{Status, Weights};
use serde_json::{Value, json};

use crate::real_consul::{Agent, ROOT};
use crate::subscriber::{Subscriber, held, settings};

async fn three(agent: &Agent) {
    for (id, port) in [("a", 9001), ("b", 9002), ("c", 9003)] {
        agent.register("web", id, port, Value::Null).await;
    }
}

const ALL: &[&str] = &["a", "b", "c"];

#[tokio::test]
async fn what_is_registered_is_seen_whole_and_soon() {
    let agent = Agent::start().await;
    let mut subscriber = Subscriber::start(settings(agent.url()), &["web"]);
    subscriber.until_ids("web", &[]).await;
    let began = tokio::time::Instant::now();
    agent
        .register(
            "web",
            "a",
            9001,
            json!({"Tags": ["http", "env=prod", "v1"], "Meta": {"region": "eu", "version": "1.2"},
                                           "Weights": {"Passing": 10, "Warning": 2}}),
        )
        .await;
    let state = subscriber.until_ids("web", &["a"]).await;
    assert!(began.elapsed() < Duration::from_millis(3_000), "{:?}", began.elapsed());
    let one = &state.instances[0];
    let label = |key: &str| one.labels.value(key);
    assert_eq!((label("region"), label("version"), label("env")), (Some("eu"), Some("1.2"), Some("prod")));
    assert_eq!((label("tag.http"), one.tags.len()), (Some("true"), 3));
    assert_eq!(one.weights, Weights { passing: 10, warning: 2 });
    assert_eq!((one.addr.to_string().as_str(), &*one.node, &*one.dc), ("127.0.0.1:9001", "n1", "dc1"));

    let began = tokio::time::Instant::now();
    agent.register("web", "b", 9002, Value::Null).await;
    subscriber.until_ids("web", &["a", "b"]).await;
    assert!(began.elapsed() < Duration::from_millis(1_000), "{:?}", began.elapsed());
}

#[tokio::test]
async fn states_follow_the_checks_and_maintenance() {
    let agent = Agent::start().await;
    three(&agent).await;
    let mut subscriber = Subscriber::start(settings(agent.url()), &["web"]);
    subscriber.until_ids("web", ALL).await;
    for (verb, status) in [("warn", Status::Warning), ("fail", Status::Critical), ("pass", Status::Passing)] {
        agent.check("a", verb).await;
        subscriber.until("web", |state| state.instances[0].status == status).await;
    }
    agent.put("/v1/agent/service/maintenance/b?enable=true&reason=test", &Value::Null).await;
    let state = subscriber.until("web", |state| state.instances[1].status == Status::Maintenance).await;
    assert_eq!(state.instances[1].weight(), 0);
    agent.put("/v1/agent/service/maintenance/b?enable=false", &Value::Null).await;
    subscriber.until("web", |state| state.instances[1].status == Status::Passing).await;
    agent.put("/v1/agent/maintenance?enable=true", &Value::Null).await;
    subscriber.until("web", |state| state.instances.iter().all(|one| one.status == Status::Maintenance)).await;
    agent.put("/v1/agent/maintenance?enable=false", &Value::Null).await;
    subscriber.until("web", |state| state.instances.iter().all(|one| one.status == Status::Passing)).await;
}

#[tokio::test]
async fn deregistering_removes_at_once_even_the_last() {
    let agent = Agent::start().await;
    three(&agent).await;
    let mut subscriber = Subscriber::start(settings(agent.url()), &["web"]);
    subscriber.until_ids("web", ALL).await;
    for (id, left) in [("a", &ALL[1..]), ("b", &ALL[2..]), ("c", &[][..])] {
        let began = tokio::time::Instant::now();
        agent.deregister(id).await;
        let state = subscriber.until_ids("web", left).await;
        assert_eq!(state.note, Note::Trusted);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    agent.register("web", "d", 9004, Value::Null).await;
    subscriber.until_ids("web", &["d"]).await;
}

#[tokio::test]
async fn a_killed_and_restarted_agent_that_knows_nothing_removes_nothing() {
    let mut agent = Agent::start().await;
    three(&agent).await;
    let mut subscriber = Subscriber::start(settings(agent.url()), &["web"]);
    subscriber.until_ids("web", ALL).await;
    agent.kill().await;
    subscriber.never_without("web", ALL, Duration::from_secs(2)).await;
    assert!(!subscriber.source().connected && subscriber.running.status.readiness().degraded);
    agent.start_again().await;
    subscriber.until("web", |state| held(state) == 3).await;
    subscriber.never_without("web", ALL, Duration::from_secs(3)).await;
    three(&agent).await;
    subscriber.until("web", |state| state.note == Note::Trusted && state.instances.len() == 3).await;
    assert!(subscriber.source().connected);
}

#[tokio::test]
async fn a_restored_snapshot_is_followed_and_its_losses_are_confirmed_first() {
    let agent = Agent::start().await;
    three(&agent).await;
    let quick = Settings { wait: Duration::from_secs(2), ..settings(agent.url()) };
    let mut subscriber = Subscriber::start(quick, &["web"]);
    subscriber.until_ids("web", ALL).await;
    let snapshot = agent.snapshot().await;
    // Registered past the agent: what an agent knows it would bring back at once, with an index above all others, and
    // then nobody could notice that there was a restore.
    let d = json!({"Service": "web", "ID": "d", "Address": "127.0.0.2", "Port": 9004});
    let node = json!({"Node": "other", "Address": "127.0.0.2", "SkipNodeUpdate": true, "Service": d});
    agent.put("/v1/catalog/register", &node).await;
    subscriber.until_ids("web", &["a", "b", "c", "d"]).await;
    agent.restore(snapshot).await;
    subscriber.until("web", |state| held(state) == 1 && state.instances.len() == 4).await;
    let state = subscriber.until_ids("web", ALL).await;
    assert_eq!((state.note, subscriber.source().counters.confirmed), (Note::Trusted, 1));
    assert!(subscriber.source().counters.lower_index >= 1);
}

#[tokio::test]
async fn a_token_that_loses_its_permission_removes_nothing() {
    let agent = Agent::start_with_acl().await;
    three(&agent).await;
    let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let policy = agent.put("/v1/acl/policy", &json!({"Name": "read-all", "Rules": rules})).await;
    let token = agent.put("/v1/acl/token", &json!({"Policies": [{"Name": "read-all"}]})).await;
    let secret = token["SecretID"].as_str().expect("a token").to_owned();
    let with_token = Settings { token: Some(secret), wait: Duration::from_secs(2), ..settings(agent.url()) };
    let mut subscriber = Subscriber::start(with_token, &["web"]);
    subscriber.until_ids("web", ALL).await;

    let path = format!("/v1/acl/policy/{}", policy["ID"].as_str().expect("a policy"));
    agent.put(&path, &json!({"Name": "read-all", "Rules": ""})).await;
    let state = subscriber.until("web", |state| held(state) == 3).await;
    assert_eq!(state.note, Note::Held { instances: 3, why: Doubt::Permission });
    subscriber.never_without("web", ALL, Duration::from_secs(4)).await;

    agent.put(&path, &json!({"Name": "read-all", "Rules": rules})).await;
    subscriber.until("web", |state| state.note == Note::Trusted && state.instances.len() == 3).await;
    agent.deregister("c").await;
    subscriber.until_ids("web", &["a", "b"]).await;
}

#[tokio::test]
async fn a_permission_that_is_lost_while_the_index_moves_removes_nothing() {
    let agent = Agent::start_with_acl().await;
    three(&agent).await;
    let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let policy = agent.put("/v1/acl/policy", &json!({"Name": "read-all", "Rules": rules})).await;
    let token = agent.put("/v1/acl/token", &json!({"Policies": [{"Name": "read-all"}]})).await;
    let secret = token["SecretID"].as_str().expect("a token").to_owned();
    let mut subscriber = Subscriber::start(Settings { token: Some(secret), ..settings(agent.url()) }, &["web"]);
    subscriber.until_ids("web", ALL).await;

    let before = agent.index("web").await;
    let path = format!("/v1/acl/policy/{}", policy["ID"].as_str().expect("a policy"));
    agent.put(&path, &json!({"Name": "read-all", "Rules": ""})).await;
    agent.check("a", "warn").await;
    let state = subscriber.until("web", |state| state.note != Note::Trusted || state.instances.is_empty()).await;
    assert_eq!(state.note, Note::Held { instances: 3, why: Doubt::Permission });
    assert!(agent.index("web").await > before, "the watch was woken by the check");
}

#[tokio::test]
async fn a_deleted_token_is_said_and_another_one_in_the_file_is_used() {
    let agent = Agent::start_with_acl().await;
    three(&agent).await;
    agent.put("/v1/acl/policy", &json!({"Name": "all", "Rules": r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#})).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "00000000-dead-4000-8000-000000000000").expect("written");
    let with_file = Settings { token_file: Some(file.clone()), ..settings(agent.url()) };
    let mut subscriber = Subscriber::start(with_file, &["web"]);
    subscriber.until_counters(|counters| counters.forbidden >= 1).await;
    assert!(!subscriber.running.status.readiness().ready);
    let token = agent.put("/v1/acl/token", &json!({"Policies": [{"Name": "all"}]})).await;
    std::fs::write(&file, token["SecretID"].as_str().expect("a token")).expect("written");
    subscriber.until_ids("web", ALL).await;
    assert!(subscriber.running.status.readiness().ready);
    assert_ne!(token["SecretID"], ROOT);
}

#[tokio::test]
async fn a_quiet_consul_is_left_in_peace() {
    let agent = Agent::start().await;
    three(&agent).await;
    let mut subscriber =
        Subscriber::start(Settings { wait: Duration::from_secs(1), ..settings(agent.url()) }, &["web", "missing"]);
    subscriber.until_ids("web", ALL).await;
    subscriber.until_ids("missing", &[]).await;
    let before = subscriber.source().counters.requests;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = subscriber.source().counters.requests - before;
    assert!((4..=10).contains(&asked), "two queries of a second each for four seconds: {asked}");
}

#[tokio::test]
async fn the_whole_catalog_is_read_once() {
    let agent = Agent::start().await;
    three(&agent).await;
    agent.register("x/y", "odd", 9009, Value::Null).await;
    let all = read_once(&settings(agent.url()), &[]).await.expect("it answers");
    let names: Vec<&str> = all.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["web", "x/y"]);
    assert_eq!(all.services[0].instances.len(), 3);
    assert_eq!(all.services[1].instances.len(), 1);
}
