use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::handles::{Action, ActionError, Ready};
use super::*;
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::engine::instance::Instance;
use crate::engine::locality::Place;
use crate::engine::route::Router as Rules;
use crate::engine::rules::RuleSet;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use crate::engine::testing::instance;
use crate::engine::time::Millis;
use crate::observe::events::{Kind, Report};
use crate::observe::metrics::Settings;

/// Stands for the publisher, the catalog and the dry run.
#[derive(Debug, Default)]
struct Parts {
    ready: Mutex<Ready>,
    done: Mutex<Vec<(String, String, Action)>>,
}

impl ReadyView for Parts {
    fn ready(&self) -> Ready {
        self.ready.lock().unwrap().clone()
    }
}

impl Actions for Parts {
    fn act(&self, service: &str, id: &str, action: Action) -> Result<bool, ActionError> {
        if service != "a/b" {
            return Err(ActionError::NoService);
        }
        self.done.lock().unwrap().push((service.to_owned(), id.to_owned(), action));
        Ok(true)
    }
}

impl CertificatesView for Parts {
    fn show(&self) -> serde_json::Value {
        json!({ "listeners": [] })
    }
}

impl CatalogView for Parts {
    fn status(&self) -> serde_json::Value {
        json!({ "sources": [] })
    }

    fn accept(&self, service: &str) -> Result<usize, ActionError> {
        if service == "held" { Ok(3) } else { Err(ActionError::NothingHeld) }
    }
}

struct Running {
    address: SocketAddr,
    parts: Arc<Parts>,
    admin: Admin,
    _stop: oneshot::Sender<()>,
}

fn table() -> Table {
    let mut lives = LiveSet::default();
    let hostile = instance("a/b", "<script>", 1, &[("version", "1.2\"\n")]);
    let service = |name: &str, instances: Vec<Instance>, lives: &mut LiveSet| {
        ServiceSnapshot::build(name.into(), 5, instances.into_iter().map(Arc::new).collect(), lives, Millis(0))
    };
    let services = [
        service("a/b", vec![hostile], &mut lives),
        service(
            "web",
            vec![instance("web", "web-1", 2, &[("version", "1.2")]), instance("web", "web-2", 3, &[])],
            &mut lives,
        ),
        service("zoo", vec![], &mut lives),
    ];
    let rules = Arc::new(Rules::compile(&RuleSet::default()).unwrap());
    Table::build(7, Snapshot::new(services), rules, Place::default(), Millis(0)).unwrap()
}

async fn start(loopback: bool, token: Option<&str>) -> Running {
    let metrics = Metrics::new(1, Settings::default());
    let events = Events::new(Arc::clone(&metrics));
    let parts = Arc::new(Parts::default());
    let admin = Admin {
        book: Arc::new(Book::new(1, std::hash::RandomState::new())),
        table: Arc::new(ArcSwap::from_pointee(table())),
        clock: Clock::start(),
        reloads: Reloads::new(Arc::clone(&events), Arc::clone(&metrics)),
        metrics,
        events,
        ready: Arc::clone(&parts) as _,
        debug_keys: None,
        actions: Arc::clone(&parts) as _,
        certificates: Arc::clone(&parts) as _,
        catalog: Arc::clone(&parts) as _,
        rules: crate::publish::desk::desk().0,
        shadow: None,
        paths: Paths::default(),
        access: Arc::new(Access {
            loopback,
            token: Arc::new(ArcSwapOption::from_pointee(token.map(str::to_owned))),
            hosts: vec![],
        }),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(serve(listener, router(admin.clone()), 8, async move { drop(stopped.await) }));
    Running { address, parts, admin, _stop: stop }
}

impl Running {
    /// Status, head and body.
    async fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) =
            self.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        (status, body)
    }

    async fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn post(&self, path: &str, fields: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
        );
        let (status, _, body) = self.ask(&request).await;
        (status, body)
    }
}

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn readiness_follows_the_state_and_liveness_does_not() {
    let running = start(true, None).await;
    assert_eq!(running.get("/live").await.0, 200);
    let (status, body) = running.get("/ready").await;
    assert_eq!((status, body.contains("\"ready\":false")), (503, true), "{body}");
    *running.parts.ready.lock().unwrap() =
        Ready { ready: true, degraded: true, reasons: vec!["web: stale".into()], notes: vec![] };
    assert_eq!(running.json("/ready").await, json!({ "ready": true, "degraded": true, "reasons": ["web: stale"] }));
}

#[tokio::test]
async fn the_table_is_shown_whole_by_service_and_by_page() {
    let running = start(true, None).await;
    let all = running.json("/v1/table").await;
    assert_eq!((&all["generation"], &all["next"]), (&7.into(), &serde_json::Value::Null));
    assert_eq!(all["services"].as_array().unwrap().len(), 3);
    assert_eq!(all["services"][0]["instances"][0]["labels"]["version"], "1.2\"\n");
    let web = running.json("/v1/table?service=web").await;
    assert_eq!(web["services"][0]["instances"][0]["health"]["state"], "healthy");
    assert_eq!(web["services"][0]["instances"][1]["available"], true);
    let first = running.json("/v1/table?limit=2").await;
    assert_eq!((first["services"].as_array().unwrap().len(), &first["next"]), (2, &"web".into()));
    let second = running.json("/v1/table?limit=2&after=web").await;
    assert_eq!((&second["services"][0]["service"], &second["next"]), (&"zoo".into(), &serde_json::Value::Null));
    assert_eq!(running.get("/v1/table?service=nobody").await.0, 404);
    assert_eq!(running.get("/v1/table?srvice=web").await.0, 400);
}

#[tokio::test]
async fn actions_reach_the_instance_whose_name_is_percent_encoded() {
    let running = start(true, None).await;
    let path = "/v1/instances/a%2Fb/%3Cscript%3E/eject";
    let (status, body) = running.post(path, JSON, r#"{"for": "5m"}"#).await;
    assert_eq!((status, body.contains("\"changed\":true")), (200, true), "{body}");
    let done = vec![("a/b".to_owned(), "<script>".to_owned(), Action::Eject(Some(300_000)))];
    assert_eq!(*running.parts.done.lock().unwrap(), done);
    assert_eq!(running.post(path, JSON, r#"{"fro": "5m"}"#).await.0, 400);
    assert_eq!(running.post("/v1/instances/a%2Fb/x/explode", JSON, "").await.0, 404);
    assert_eq!(running.post("/v1/instances/nobody/x/drain", JSON, "").await.0, 404);
    assert_eq!(
        running.post("/v1/catalog/held/accept", JSON, "").await,
        (200, r#"{"released":3,"service":"held"}"#.to_owned())
    );
    assert_eq!(running.post("/v1/catalog/web/accept", JSON, "").await.0, 409);
}

#[tokio::test]
async fn actions_need_json_and_off_loopback_a_token() {
    let drain = "/v1/instances/a%2Fb/x/drain";
    let running = start(true, None).await;
    assert_eq!(running.post(drain, "content-type: text/plain\r\n", "").await.0, 415, "a form of another site");
    let open = start(false, None).await;
    assert_eq!(open.post(drain, JSON, "").await.0, 403);
    let closed = start(false, Some("s3cret")).await;
    assert_eq!(closed.post(drain, JSON, "").await.0, 401);
    let wrong = format!("{JSON}authorization: Bearer s3creT\r\n");
    assert_eq!(closed.post(drain, &wrong, "").await.0, 401);
    let right = format!("{JSON}authorization: Bearer s3cret\r\n");
    assert_eq!(closed.post(drain, &right, "").await.0, 200);
    assert!(running.parts.done.lock().unwrap().is_empty() && open.parts.done.lock().unwrap().is_empty());
    assert_eq!(closed.get("/v1/table").await.0, 200, "reading needs none");
}

#[tokio::test]
async fn a_foreign_host_is_refused_everywhere() {
    let running = start(true, None).await;
    for path in ["/", "/v1/table", "/metrics", "/live"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        assert_eq!(running.ask(&request).await.0, 403, "{path}");
    }
    assert_eq!(running.ask("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.0, 400);
}

#[tokio::test]
async fn the_last_reload_is_shown_with_its_diagnostics() {
    let running = start(true, None).await;
    assert!(running.json("/v1/rules").await["last_reload"].is_null());
    let source = Source::new("rules/web.yaml", "to: [grey]\n");
    let error = Diagnostic::error("E012", &source, Span::new(5, 9), "no pool is named `grey`");
    running.admin.reloads.refused("rules", "1 error", Diagnostics(vec![error]));
    let rules = running.json("/v1/rules").await;
    let last = &rules["last_reload"];
    assert_eq!((&last["result"], &last["diagnostics"][0]["line"]), (&"failed".into(), &1.into()));
    assert!(last["diagnostics"][0]["text"].as_str().unwrap().contains("^^^^"));
    let (_, metrics) = running.get("/metrics").await;
    assert!(metrics.contains(r#"pointsman_reload_total{what="rules",result="failed"} 1"#), "{metrics}");
}

#[tokio::test]
async fn explaining_uses_the_table_in_force_and_needs_no_token() {
    let running = start(false, Some("s3cret")).await;
    let line = r#"{"method":"GET","host":"shop.example.com","path":"/cart","draw":"00000000000000ff"}"#;
    let (status, body) = running.post("/v1/explain", JSON, line).await;
    assert_eq!(status, 200, "{body}");
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&told["generation"], &told["draw"]), (&7.into(), &"00000000000000ff".into()));
    assert!(body.contains("no_route"), "no rule file claims the host: {body}");
    assert_eq!(running.post("/v1/explain", JSON, "{").await.0, 400);
    let large = "x".repeat(BODY_LIMIT + 1);
    assert_eq!(running.post("/v1/explain", JSON, &large).await.0, 413);
}

#[tokio::test]
async fn events_are_listed_and_streamed_from_where_the_client_was() {
    let running = start(true, None).await;
    let events = &running.admin.events;
    for n in 1..=3 {
        events.record(Report::new(Kind::Published, format!("n {n}")));
    }
    let listed = running.json("/v1/events?after=1").await;
    assert_eq!(listed["events"][0]["id"], 2);

    let mut stream = BufReader::new(TcpStream::connect(running.address).await.unwrap());
    let request = "GET /v1/events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nlast-event-id: 2\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut ids = Vec::new();
    let mut line = String::new();
    while ids.len() < 2 {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "the stream ended");
        if let Some(id) = line.strip_prefix("id: ") {
            ids.push(id.trim().to_owned());
            if ids.len() == 1 {
                events.record(Report::new(Kind::Ejected, "6 of the last 7 were 503"));
            }
        }
    }
    assert_eq!(ids, ["3", "4"]);
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_sets_no_markup() {
    let running = start(true, None).await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let (status, head, html) = running.ask(request).await;
    assert!(status == 200 && head.contains("content-security-policy: default-src 'none'"), "{head}");
    let (_, script) = running.get("/app.js").await;
    for text in [&html, &script] {
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"));
    }
}
