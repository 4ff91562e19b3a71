//! The dry run and the live proxy agree: on rule, pool, level and instance for every request sent alone, and on rule and
//! pool for every request sent among others. The same holds for what the access log's lines say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use pointsman::cli::demo::instances::DemoInstance;
use pointsman::dry_run::{explain::explain, inputs};
use pointsman::engine::format::explanation::{Explanation, Kind};
use pointsman::engine::format::traffic::TrafficLine;
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use serde_json::{Value, json};

use crate::ports::unused;
use crate::support::binary::Proxy;
use crate::support::load::{Connection, send};
use crate::support::site::{ready, replace, until};

const RULES: &str = include_str!("agreement.yaml");
const OTHER_RULES: &str = "service: api\npaths: [/api]\npools: {all: team == x}\n\
                           rules: [{name: api, to: [all], balance: random}]\n";

/// `service id region zone version more`: two regions, two zones each, two versions, lanes, weights, states.
const CATALOG: &[&str] = &[
    "web a1 eu eu-a 1.2",
    "web a2 eu eu-a 1.2 weight=3",
    "web a3 eu eu-b 1.2",
    "web a4 us us-a 1.2",
    "web a5 us us-b 1.2 status=critical",
    "web g1 eu eu-a 1.3",
    "web g2 eu eu-b 1.3 weight=2",
    "web g3 us us-a 1.3",
    "web g4 us us-b 1.3 weight=0",
    "web x1 eu eu-a 1.3 lane=feature-x",
    "web y1 us us-a 1.2 lane=feature-y",
    "web w1 eu eu-b 1.2 status=warning",
    "api p1 eu eu-a 1",
    "api p2 eu eu-a 1 weight=5",
];

struct Ground {
    folder: tempfile::TempDir,
    _instances: Vec<DemoInstance>,
    table: Table,
    proxy: Proxy,
}

impl Ground {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut instances, mut services) = (Vec::new(), BTreeMap::<&str, String>::new());
        for line in CATALOG {
            let words: Vec<&str> = line.split(' ').collect();
            let [service, id, region, zone, version, more @ ..] = words.as_slice() else { panic!("{line}") };
            let instance = DemoInstance::start(id, unused().port(), &BTreeMap::new()).await.unwrap();
            let (mut labels, mut fields) = (format!("region: {region}, zone: {zone}, env: prod"), String::new());
            let _ = match *service {
                "web" => write!(labels, ", version: \"{version}\""),
                _ => write!(labels, ", team: x"),
            };
            for (key, value) in more.iter().map(|pair| pair.split_once('=').unwrap()) {
                let _ = match key {
                    "lane" => write!(labels, ", lane: {value}"),
                    _ => write!(fields, ", {key}: {value}"),
                };
            }
            let port = instance.addr.port();
            let _ = writeln!(
                services.entry(service).or_default(),
                "    - {{id: {id}, address: 127.0.0.1, port: {port}, labels: {{{labels}}}{fields}}}"
            );
            instances.push(instance);
        }
        let mut text = "services:\n".to_owned();
        for (service, lines) in services {
            let _ = write!(text, "  {service}:\n{lines}");
        }
        let at = |name: &str| folder.path().join(name);
        replace(&at("catalog.yaml"), &text);
        std::fs::create_dir(at("rules")).unwrap();
        replace(&at("rules/web.yaml"), RULES);
        replace(&at("rules/api.yaml"), OTHER_RULES);
        replace(
            &at("pointsman.yaml"),
            &format!(
                "catalog: {{file: {0}/catalog.yaml}}\nrules: {0}/rules\nregion: eu\nzone: eu-a\ndebug_headers: true\n\
                 trusted_proxies: [127.0.0.0/8]\n\
                 access_log: {{path: {0}/access.log}}\nworkers: 2\ndrain: {{delay: 0s}}\n",
                folder.path().display()
            ),
        );
        let place = inputs::place(Some("eu"), Some("eu-a"));
        let table = inputs::from_files(&[at("rules")], &at("catalog.yaml"), place).unwrap();
        let proxy = Proxy::start(&["--config", at("pointsman.yaml").to_str().unwrap()]);
        ready(proxy.admin).await;
        Self { folder, _instances: instances, table, proxy }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn explain(&self, line: &TrafficLine) -> Explanation {
        let request = line.request().unwrap();
        let trusted = self.table.router.trusts(&request.host, &request.path, request.client);
        explain(&self.table, &request.view(trusted), request.draw.unwrap_or(Draw(0)), Millis(0))
    }
}

/// A xorshift generator: the same requests in every run.
struct Luck(u64);

impl Luck {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len() as u64) as usize]
    }
}

const HOSTS: &[&str] =
    &["web.test", "web.test", "web.test", "a.web.test", "WEB.test:80", "b.a.web.test", "web.test.", "other.test"];
const PATHS: &[&str] = &[
    "/",
    "/",
    "/",
    "/cart",
    "/cart/17",
    "/cart/17?v=1",
    "/cartoon",
    "/%63art/17?v=%31",
    "/x/../cart/18?v=",
    "/dead",
    "/dead/any",
    "/teapot",
    "/secure",
    "/secure/17",
    "/old",
    "/random",
    "/random/2",
    "/mint",
    "/heavy",
    "/region",
    "/api",
    "/api/x",
    "/apis",
    "/search?q=a+b&lang=de",
    "/search?lang=en",
];

fn generated(luck: &mut Luck) -> TrafficLine {
    let mut headers = serde_json::Map::new();
    let mut cookies = Vec::new();
    if luck.below(2) == 0 {
        cookies.push(format!("uid={}", luck.below(500)));
    }
    if luck.below(12) == 0 {
        cookies.push(format!("lane={}", luck.one(&["feature-x", "base"])));
    }
    if !cookies.is_empty() {
        headers.insert("cookie".into(), cookies.join("; ").into());
    }
    for (name, chance, values) in [
        ("x-user-group", 4, &["test", "beta", "b e", "staff"][..]),
        ("x-lane", 6, &["feature-x", "feature-y", "gone", "", "base"]),
        ("x-user-id", 3, &["1", "2", "3", "44", "555"]),
        ("x-app-version", 4, &["1.9.0", "v2.0", "2.10.1-rc.1", "1.10", "none"]),
    ] {
        if luck.below(chance) == 0 {
            headers.insert(name.into(), luck.one(values).into());
        }
    }
    // What the client's proxy says of how it came is its scheme, if it is one.
    let scheme = ["http", "https", "http", "http"][luck.below(4) as usize];
    match (scheme, luck.below(4)) {
        ("https", 0) => drop(headers.insert("forwarded".into(), "proto=https".into())),
        ("https", _) => drop(headers.insert("x-forwarded-proto".into(), "https".into())),
        (_, 0) => drop(headers.insert("x-forwarded-proto".into(), "wss".into())),
        _ => {}
    }
    let line = json!({"method": luck.one(&["GET", "GET", "GET", "POST", "DELETE"]), "host": luck.one(HOSTS),
                      "path": luck.one(PATHS), "headers": headers, "client": "127.0.0.1", "scheme": scheme});
    TrafficLine::parse(&line.to_string()).unwrap()
}

async fn ask(to: SocketAddr, line: &TrafficLine, connection: &mut Connection) -> (u16, HeaderMap) {
    let mut request = Request::builder().method(&*line.method).uri(&line.path).header("host", &line.host);
    for (name, value) in &line.headers {
        request = request.header(name, value.as_str().unwrap());
    }
    let answer = send(to, request.body(Full::<Bytes>::default()).unwrap(), connection).await.unwrap();
    let (head, body) = answer.into_parts();
    body.collect().await.unwrap();
    (head.status.as_u16(), head.headers)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// (rule, pool, level, instance)
type Way = (Option<String>, Option<String>, Option<String>, Option<String>);

fn observed(headers: &HeaderMap) -> Way {
    let field = |name: &str| text(headers, name).map(str::to_owned);
    (field("x-pointsman-rule"), field("x-pointsman-pool"), field("x-pointsman-level"), field("x-pointsman-instance"))
}

fn foretold(said: &Explanation) -> Way {
    let result = said.result.clone();
    (result.rule, result.pool, result.level.map(|level| level.to_string()), result.instance)
}

/// A request that no instance answers: its status, its rule and its word.
fn check_refusal(said: &Explanation, status: u16, headers: &HeaderMap, line: &TrafficLine) {
    assert_ne!(said.result.outcome, Kind::Routed, "{line:?} was answered with {status}: {}", said.text());
    assert_eq!(said.result.status, Some(status), "{line:?}: {}", said.text());
    assert_eq!(text(headers, "x-pointsman-rule"), said.result.rule.as_deref(), "{line:?}: {}", said.text());
    if said.result.outcome == Kind::Refused {
        assert_eq!(said.result.detail.as_deref(), text(headers, "x-pointsman-error"), "{line:?}: {}", said.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_sent_alone_go_exactly_where_explain_says() {
    let ground = Ground::new().await;
    let (mut luck, mut connection) = (Luck(0x9E37_79B9_7F4A_7C15), None);
    let (mut ways, mut sample) = (BTreeMap::<(String, String), usize>::new(), Vec::new());
    let mut wrong = Vec::new();
    for n in 0..10_000 {
        let mut line = generated(&mut luck);
        let (status, headers) = ask(ground.proxy.listen, &line, &mut connection).await;
        line.draw = Some(text(&headers, "x-pointsman-draw").expect("every answer names its draw").to_owned());
        let said = ground.explain(&line);
        if said.result.outcome != Kind::Routed {
            check_refusal(&said, status, &headers, &line);
            *ways.entry((said.result.rule.unwrap_or_default(), status.to_string())).or_default() += 1;
            continue;
        }
        let (seen, said_way) = (observed(&headers), foretold(&said));
        if seen != said_way {
            wrong.push(format!("#{n} {line:?}\n  proxy {seen:?}\n  explain {said_way:?}\n{}", said.text()));
        }
        if n % 500 == 1 || (n % 100 == 3 && sample.len() < 20) {
            sample.push((line, seen.clone()));
        }
        *ways.entry((seen.0.unwrap_or_default(), seen.1.unwrap_or_default())).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{} differ, such as\n{}", wrong.len(), wrong[0]);
    assert!(ways.len() >= 20, "the set is too uniform: {ways:#?}");
    assert!(sample.len() >= 20);
    println!("10,000 requests over {} ways agree", ways.len());
    for (line, seen) in sample.iter().take(20) {
        assert_eq!(&command(&ground, line), seen, "{line:?}");
    }
}

/// What `pointsman explain --draw` says, as a process.
fn command(ground: &Ground, line: &TrafficLine) -> Way {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("explain").arg("--rules").arg(ground.path("rules")).arg("--catalog").arg(ground.path("catalog.yaml"));
    command.args(["--region", "eu", "--zone", "eu-a", "--format", "json", "--draw", line.draw.as_deref().unwrap()]);
    for (name, value) in &line.headers {
        command.arg("-H").arg(format!("{name}: {}", value.as_str().unwrap()));
    }
    let out = command
        .arg(&line.method)
        .arg(format!("{}://{}{}", line.scheme.as_deref().unwrap(), line.host, line.path))
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(0), "{line:?}: {}", String::from_utf8_lossy(&out.stderr));
    foretold(&serde_json::from_slice::<Explanation>(&out.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_among_others_have_their_rule_and_pool_and_one_of_the_candidates() {
    let ground = Arc::new(Ground::new().await);
    let clients = (1..=16u64).map(|client| {
        let ground = Arc::clone(&ground);
        tokio::spawn(async move {
            let (mut luck, mut connection) = (Luck(client * 0x0123_4567_89AB), None);
            for _ in 0..125 {
                let mut line = generated(&mut luck);
                let (status, headers) = ask(ground.proxy.listen, &line, &mut connection).await;
                line.draw = Some(text(&headers, "x-pointsman-draw").expect("every answer names its draw").to_owned());
                let said = ground.explain(&line);
                if said.result.outcome != Kind::Routed {
                    check_refusal(&said, status, &headers, &line);
                    continue;
                }
                let (rule, pool, _, instance) = observed(&headers);
                assert_eq!((&rule, &pool), (&said.result.rule, &said.result.pool), "{line:?}: {}", said.text());
                let of = said.pools.iter().filter(|of| Some(&of.name) == pool.as_ref());
                let mut candidates = of.flat_map(|of| &of.levels).flat_map(|level| &level.candidates);
                assert!(candidates.any(|one| Some(&one.id) == instance.as_ref()), "{line:?}: {}", said.text());
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_the_access_log_is_a_traffic_line_that_explains_to_what_it_says() {
    let mut ground = Ground::new().await;
    let (mut luck, mut connection) = (Luck(77), None);
    for _ in 0..500 {
        ask(ground.proxy.listen, &generated(&mut luck), &mut connection).await;
    }
    let log = ground.path("access.log");
    until("all lines are written", async || lines(&log).len() == 500).await;
    for line in lines(&log) {
        let parsed = TrafficLine::parse(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let (said, result) = (ground.explain(&parsed), &parsed.rest["result"]);
        assert_eq!(result["rule"].as_str(), said.result.rule.as_deref(), "{line}\n{}", said.text());
        assert_eq!(result["pool"].as_str(), said.result.pool.as_deref(), "{line}\n{}", said.text());
        assert_eq!(result["instance"].as_str(), said.result.instance.as_deref(), "{line}\n{}", said.text());
        assert_eq!(result["service"].as_str(), said.result.service.as_deref(), "{line}\n{}", said.text());
        if let Some(status) = said.result.status {
            assert_eq!(result["status"], status, "{line}");
        }
        assert!(parsed.draw.is_some() && parsed.ts.is_some() && parsed.rest["generation"] != Value::Null, "{line}");
    }
    ground.proxy.signal("TERM");
    assert_eq!(ground.proxy.wait().code(), Some(0));
}

fn lines(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(str::to_owned).collect()
}
