//! The proxy in front of services registered in a real Consul, under load: what is registered is routed, what is
//! critical or gone is not, and nothing that Consul suffers costs a request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pointsman::cli::demo::instances::DemoInstance;
use serde_json::{Value, json};

use crate::ports::unused;
use crate::real_consul::Agent;
use crate::support::binary::Proxy;
use crate::support::load::{Load, get};
use crate::support::site::{admin_get, instance, ready, replace, until};

const RULES: &str = "service: web\npools: {all: env == prod}\nrules: [{name: all, to: [all]}]\n";

/// How long Consul is away in the test of its absence. The issue's minute is run by hand: `CONSUL_AWAY=60`.
const AWAY: Duration = Duration::from_secs(10);

/// Sample instances and a proxy that follows a Consul.
struct Front {
    folder: tempfile::TempDir,
    instances: BTreeMap<String, DemoInstance>,
}

impl Front {
    async fn new(ids: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        replace(&folder.path().join("web.yaml"), RULES);
        let mut instances = BTreeMap::new();
        for id in ids {
            instances
                .insert((*id).to_owned(), DemoInstance::start(id, unused().port(), &BTreeMap::new()).await.unwrap());
        }
        Self { folder, instances }
    }

    async fn register(&self, agent: &Agent, id: &str, more: Value) {
        let mut all = json!({"Meta": {"env": "prod"}, "Tags": ["http"]});
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        agent.register("web", id, self.instances[id].addr.port(), all).await;
    }

    async fn register_all(&self, agent: &Agent) {
        for id in self.instances.keys() {
            self.register(agent, id, Value::Null).await;
        }
    }

    fn rules(&self) -> String {
        self.folder.path().join("web.yaml").display().to_string()
    }

    async fn proxy(&self, agent: &Agent) -> Proxy {
        let proxy = Proxy::start(&["--consul", &agent.url(), "--rules", &self.rules()]);
        ready(proxy.admin).await;
        proxy
    }

    async fn configured(&self, consul: &str) -> Proxy {
        let config = self.folder.path().join("pointsman.yaml");
        replace(&config, &format!("catalog: {{consul: {consul}}}\nrules: {}\n", self.rules()));
        let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
        ready(proxy.admin).await;
        proxy
    }
}

fn of(load: &Load, id: &str) -> usize {
    load.bodies().get(id).copied().unwrap_or(0)
}

async fn all_answer(load: &Load, ids: &[&str]) {
    until("everybody answers", async || ids.iter().all(|id| of(load, id) > 3)).await;
}

/// No answer comes from `id` any more; how long after `began` the last one came, as far as looking every 10 ms tells.
async fn until_quiet(load: &Load, id: &str, began: Instant) -> Duration {
    let (mut last, mut changed) = (of(load, id), began);
    while changed.elapsed() < Duration::from_millis(700) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if of(load, id) != last {
            (last, changed) = (of(load, id), Instant::now());
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{id} still answers");
    }
    changed - began
}

async fn whole(load: Load) {
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
    println!("{} requests, none failed, slowest {:?}", tally.good, tally.slowest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_is_routed_and_what_is_critical_is_not_within_300_ms() {
    let agent = Agent::start().await;
    let front = Front::new(&["a", "b", "c"]).await;
    front.register(&agent, "a", Value::Null).await;
    front.register(&agent, "b", Value::Null).await;
    let proxy = front.proxy(&agent).await;
    let load = Load::start(proxy.listen, "web.test", 400);
    all_answer(&load, &["a", "b"]).await;

    let (mut to_route, mut to_remove) = (Vec::new(), Vec::new());
    // Consul is asked at most once a second about a service, after a burst of five: a change waits for nobody as long as
    // the service does not change all the time.
    for _ in 0..2 {
        let before = of(&load, "c");
        front.register(&agent, "c", Value::Null).await;
        to_route.push(until("the new one answers", async || of(&load, "c") > before).await);
        let began = Instant::now();
        agent.check("c", "fail").await;
        to_remove.push(until_quiet(&load, "c", began).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = of(&load, "c");
        agent.check("c", "pass").await;
        to_route.push(until("it answers again", async || of(&load, "c") > before).await);
        let began = Instant::now();
        agent.deregister("c").await;
        to_remove.push(until_quiet(&load, "c", began).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!("to route: {to_route:?}; to remove: {to_remove:?}");
    // The median: one of them may have waited for the machine, and not for us.
    for mut took in [to_route, to_remove] {
        took.sort_unstable();
        assert!(took[took.len() / 2 - 1] < Duration::from_millis(300), "{took:?}");
        assert!(took[took.len() - 1] < Duration::from_secs(5), "{took:?}");
    }
    whole(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_rules_for_every_service_one_that_is_registered_is_served_and_one_that_leaves_is_not() {
    let agent = Agent::start().await;
    let front = Front::new(&["a", "b"]).await;
    let rules =
        "service: '*'\nhosts: ['{service}.internal']\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";
    replace(&front.folder.path().join("web.yaml"), rules);
    agent.register("orders", "a", front.instances["a"].addr.port(), Value::Null).await;
    agent.until_listed("orders").await;
    let proxy = front.proxy(&agent).await;
    let mut connection = None;
    assert_eq!(get(proxy.listen, "orders.internal", "/", &mut connection).await.unwrap().0, 200, "ready means served");
    let mut users = None;
    assert_eq!(get(proxy.listen, "users.internal", "/", &mut users).await.unwrap().0, 404);
    agent.register("users", "b", front.instances["b"].addr.port(), Value::Null).await;
    let came =
        until("it is served", async || get(proxy.listen, "users.internal", "/", &mut users).await.unwrap().0 == 200);
    println!("a new service is served after {:?}", came.await);
    agent.deregister("b").await;
    until("it is gone", async || get(proxy.listen, "users.internal", "/", &mut users).await.unwrap().0 == 404).await;
    assert_eq!(get(proxy.listen, "orders.internal", "/", &mut connection).await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_one_that_turns_critical_stays_for_its_grace_and_one_that_leaves_goes_at_once() {
    let agent = Agent::start().await;
    let front = Front::new(&["a"]).await;
    front.register_all(&agent).await;
    let proxy = front.proxy(&agent).await;
    let mut connection = None;
    assert_eq!(get(proxy.listen, "web.test", "/", &mut connection).await.unwrap().0, 200);
    let began = Instant::now();
    agent.check("a", "fail").await;
    until("nobody is left", async || get(proxy.listen, "web.test", "/", &mut connection).await.unwrap().0 == 503).await;
    let took = began.elapsed();
    println!("the last one turned critical: 503 after {took:?}");
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_millis(5_000), "{took:?}");
    agent.check("a", "pass").await;
    until("it is back", async || get(proxy.listen, "web.test", "/", &mut connection).await.unwrap().0 == 200).await;
    let began = Instant::now();
    agent.deregister("a").await;
    until("nobody is left", async || get(proxy.listen, "web.test", "/", &mut connection).await.unwrap().0 == 503).await;
    println!("the last one left: 503 after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(1_800), "not after the grace: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_warnings_and_maintenance_shape_the_shares() {
    let agent = Agent::start().await;
    let front = Front::new(&["a", "b", "c"]).await;
    front.register(&agent, "a", json!({"Weights": {"Passing": 10, "Warning": 1}})).await;
    front.register(&agent, "b", json!({"Weights": {"Passing": 1, "Warning": 1}})).await;
    let proxy = front.proxy(&agent).await;
    let share = async |more: usize| {
        let (mut connection, mut seen) = (None, BTreeMap::<String, usize>::new());
        for _ in 0..more {
            let (status, body) = get(proxy.listen, "web.test", "/", &mut connection).await.unwrap();
            assert_eq!(status, 200);
            *seen.entry(body).or_default() += 1;
        }
        move |id: &str| seen.get(id).copied().unwrap_or(0) as f64 / more as f64
    };
    let seen = share(1_100).await;
    assert!((seen("b") - 1.0 / 11.0).abs() < 0.035, "10:1 gave {:.3}", seen("b"));

    agent.check("a", "warn").await;
    until("the warning weight counts", async || instance(proxy.admin, "web", "a").await["weight"] == 1).await;
    let seen = share(600).await;
    assert!((seen("a") - 0.5).abs() < 0.1, "1:1 gave {:.3}", seen("a"));

    agent.put("/v1/agent/service/maintenance/a?enable=true&reason=test", &Value::Null).await;
    until("it is in maintenance", async || instance(proxy.admin, "web", "a").await["status"] == "maintenance").await;
    assert_eq!(share(200).await("a"), 0.0);
    agent.put("/v1/agent/service/maintenance/a?enable=false", &Value::Null).await;
    agent.check("a", "pass").await;
    until("it is back at its weight", async || instance(proxy.admin, "web", "a").await["weight"] == 10).await;
    assert!(share(200).await("a") > 0.8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_that_comes_back_empty_removes_nothing_before_the_hold() {
    let mut agent = Agent::start().await;
    let front = Front::new(&["a", "b", "c"]).await;
    front.register_all(&agent).await;
    let proxy = front.configured(&format!("{{address: {}, hold: {{max: 15s}}}}", agent.url())).await;
    let load = Load::start(proxy.listen, "web.test", 300);
    all_answer(&load, &["a", "b", "c"]).await;
    agent.kill().await;
    agent.start_again().await;
    let answers_again = Instant::now();
    until("the removal is held", async || {
        admin_get(proxy.admin, "/ready").await.unwrap().1["reasons"].to_string().contains("holds")
    })
    .await;
    println!("{}", admin_get(proxy.admin, "/ready").await.unwrap().1);
    while answers_again.elapsed() < Duration::from_secs(5) {
        let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
        assert_eq!(table["services"][0]["files"][0]["pools"][0]["routable"], 3, "{table}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    front.register_all(&agent).await;
    until("all is well", async || admin_get(proxy.admin, "/ready").await.unwrap().1["degraded"] == false).await;
    let before: Vec<usize> = ["a", "b", "c"].map(|id| of(&load, id)).into();
    until("everybody answers", async || (0..3).all(|n| of(&load, ["a", "b", "c"][n]) > before[n])).await;
    whole(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_may_stop_for_a_while_without_a_request_noticing() {
    let away = std::env::var("CONSUL_AWAY").ok().and_then(|text| text.parse().ok()).map_or(AWAY, Duration::from_secs);
    let agent = Agent::start_keeping().await;
    let front = Front::new(&["a", "b", "c"]).await;
    front.register_all(&agent).await;
    let proxy = front.proxy(&agent).await;
    let load = Load::start(proxy.listen, "web.test", 300);
    all_answer(&load, &["a", "b", "c"]).await;
    let mut agent = agent;
    agent.kill().await;
    let began = Instant::now();
    let mut degraded = None;
    while began.elapsed() < away {
        let (status, said) = admin_get(proxy.admin, "/ready").await.unwrap();
        assert_eq!(status, 200, "{said}");
        if said["degraded"] == true && degraded.is_none() {
            degraded = Some(began.elapsed());
            println!("degraded after {:?}: {}", began.elapsed(), said["reasons"]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(degraded.is_some());
    agent.start_again().await;
    let back = Instant::now();
    until("it is followed again", async || admin_get(proxy.admin, "/ready").await.unwrap().1["degraded"] == false)
        .await;
    println!("followed again {:?} after Consul's return", back.elapsed());
    front.register_all(&agent).await;
    // An agent that came back holds checks for critical; what it is told while it reads itself in may not reach its
    // catalog for a minute. It is told again.
    until("Consul says that all are well", async || {
        let passing = agent.get("/v1/health/service/web?passing=true").await.to_string();
        let ill: Vec<&str> =
            ["a", "b", "c"].into_iter().filter(|id| !passing.contains(&format!("check-{id}"))).collect();
        for id in &ill {
            agent.check(id, "fail").await;
            agent.check(id, "pass").await;
        }
        if !ill.is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        ill.is_empty()
    })
    .await;
    until("everybody is routable", async || {
        let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
        table["services"][0]["files"][0]["pools"][0]["routable"] == 3
    })
    .await;
    whole(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_snapshot_and_a_withdrawn_token_cost_no_request() {
    let agent = Agent::start_with_acl().await;
    let front = Front::new(&["a", "b", "c"]).await;
    front.register_all(&agent).await;
    let read = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let policy = agent.put("/v1/acl/policy", &json!({"Name": "read-all", "Rules": read})).await;
    let token = agent.put("/v1/acl/token", &json!({"Policies": [{"Name": "read-all"}]})).await;
    let file = front.folder.path().join("token");
    replace(&file, token["SecretID"].as_str().unwrap());
    let proxy = front
        .configured(&format!("{{address: {}, token_file: {}, transport: {{wait: 2s}}}}", agent.url(), file.display()))
        .await;
    let load = Load::start(proxy.listen, "web.test", 300);
    all_answer(&load, &["a", "b", "c"]).await;

    let snapshot = agent.snapshot().await;
    agent.restore(snapshot).await;
    let path = format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap());
    agent.put(&path, &json!({"Name": "read-all", "Rules": ""})).await;
    until("the loss is doubted", async || {
        admin_get(proxy.admin, "/ready").await.unwrap().1["reasons"].to_string().contains("holds 3")
    })
    .await;
    println!("{}", admin_get(proxy.admin, "/ready").await.unwrap().1["reasons"]);
    let good = load.good();
    until("traffic goes on", async || load.good() > good + 300).await;
    agent.put(&path, &json!({"Name": "read-all", "Rules": read})).await;
    until("all is well", async || admin_get(proxy.admin, "/ready").await.unwrap().1["degraded"] == false).await;
    agent.deregister("c").await;
    until("c is gone", async || instance(proxy.admin, "web", "c").await.is_null()).await;
    whole(load).await;
}
