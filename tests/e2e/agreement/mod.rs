//! Four ways to the same answer: the live data plane over a socket, `explain`, `replay`, and a naive evaluator that reads
//! the rules as they are written. Rule files, catalogs and requests are generated; all four must agree on rule, pool,
//! level and instance, and on exact shares where luck decides. What `check` says of the same rules with certainty must
//! hold as well: nothing proven is refuted by what was seen, and every witness does what it is shown for.
//!
//! A failure names its seed and is made smaller first: `AGREEMENT_SEED=7 cargo test --test e2e agreement` runs that one
//! again, `AGREEMENT_WORLDS=1000` more of them.

mod generate;
mod lints;
mod model;
mod naive;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pointsman::dry_run::command::Explain;
use pointsman::dry_run::explain::explain;
use pointsman::dry_run::inputs;
use pointsman::dry_run::replay::{Counts, Luck as ReplayLuck, Redactions, Scene};
use pointsman::dry_run::traffic::stream::{Reading, run};
use pointsman::engine::diagnostic::Source;
use pointsman::engine::format::explanation::{Explanation, Kind};
use pointsman::engine::format::traffic::{TrafficLine, TrafficRequest};
use pointsman::engine::instance::{Instance, Status, Weights};
use pointsman::engine::route::{Outcome, Router, Scratch, decide, spread};
use pointsman::engine::rules::{self, RuleSet};
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;
use serde_json::Value;

use crate::harness::{Client, Proxy, Reply, Scripted, Setup, ok};
use generate::Luck;
use model::{Request, World};
use naive::{End, verdict};

/// Generated worlds in a usual run, and requests for each.
const WORLDS: u64 = 60;
const REQUESTS: usize = 40;

#[tokio::test]
async fn proxy_explain_replay_and_a_naive_evaluator_agree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("AGREEMENT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("AGREEMENT_WORLDS").unwrap_or(WORLDS),
    };
    let mut stage = Stage::new().await;
    let mut told = Told::default();
    for seed in seeds {
        let mut luck = Luck::new(seed);
        let world = luck.world();
        let requests: Vec<Request> = (0..REQUESTS).map(|_| luck.request()).collect();
        if let Err(wrong) = stage.play(&world, &requests, &mut told).await {
            let (world, request, why) = smaller(&mut stage, world, wrong).await;
            let files: Vec<String> =
                world.files.iter().map(|file| format!("# {}\n{}", file.name, file.yaml())).collect();
            panic!("seed {seed}: {why}\n{request:#?}\n{}\n{:#?}", files.join("\n"), world.instances);
        }
    }
    assert!(told.covers_everything(), "the generator is too tame: {told:?}");
}

/// How often each kind of end was met, so that agreement is not agreement about nothing.
#[derive(Debug, Default)]
struct Told {
    cases: u64,
    routed: u64,
    rerouted: u64,
    refused: u64,
    fixed: u64,
    panics: u64,
    minted: u64,
    drawn: u64,
    spilled: u64,
    proven: u64,
    witnesses: u64,
}

impl Told {
    fn covers_everything(&self) -> bool {
        let few = [self.rerouted, self.panics, self.minted, self.drawn, self.spilled, self.proven, self.witnesses];
        self.cases < 1_000
            || (few.iter().all(|count| *count > 5)
                && self.routed > self.cases / 5
                && self.refused > 0
                && self.fixed > 0)
    }
}

/// A request about which they disagree.
struct Wrong {
    request: Option<Request>,
    why: String,
}

/// The data plane, and instances that say who they are.
struct Stage {
    proxy: Proxy,
    instances: BTreeMap<String, Scripted>,
    lives: LiveSet,
    worlds: u64,
}

/// What the client saw.
#[derive(Debug)]
struct Seen {
    reply: Reply,
    draw: String,
    minted: Option<String>,
}

/// A world in the engine's terms.
struct Assembled {
    set: RuleSet,
    parsed: pointsman::engine::diagnostic::Diagnostics,
    router: Arc<Router>,
    services: Vec<(&'static str, Vec<Arc<Instance>>)>,
}

impl Stage {
    async fn new() -> Self {
        let mut instances = BTreeMap::new();
        for id in (0..8).map(|n| format!("web-{n}")).chain((0..3).map(|n| format!("api-{n}"))) {
            let name = id.clone();
            instances.insert(id, Scripted::http(move |_| ok(&name)).await);
        }
        let proxy = Setup::default().settings(|settings| settings.debug_headers = true).start().await;
        Self { proxy, instances, lives: LiveSet::default(), worlds: 0 }
    }

    /// Publishes a world and asks everything of it.
    async fn play(&mut self, world: &World, requests: &[Request], told: &mut Told) -> Result<(), Wrong> {
        self.worlds += 1;
        let assembled = self.assemble(world);
        let live = table(world, &assembled, &mut self.lives);
        // One that nobody uses, so that what is in flight on the live one has no say.
        let still = table(world, &assembled, &mut LiveSet::default());
        self.proxy.publish_table(live);
        let mut client = self.proxy.client().await;
        let mut asked: Vec<(Request, Seen)> = Vec::new();
        for request in requests {
            let seen = ask(&mut client, request).await;
            let cookie = seen.reply.field("set-cookie");
            asked.push((request.clone(), seen));
            // He comes again with what he was given.
            if let Some((name, rest)) = cookie.as_deref().and_then(|cookie| cookie.split_once('=')) {
                let mut again = request.clone();
                again.cookies.push((name.into(), rest.split(';').next().unwrap_or("").into()));
                let seen = ask(&mut client, &again).await;
                asked.push((again, seen));
            }
        }
        let replayed = replayed(&still, &asked);
        for ((request, seen), replayed) in asked.iter().zip(replayed) {
            let traffic = captured(request, &seen.draw);
            let compared = Compared { world, request, seen, still: &still, traffic: &traffic, replayed };
            compared.agree(told).map_err(|why| Wrong { request: Some(request.clone()), why })?;
        }
        let rules_taken: Vec<String> =
            asked.iter().filter_map(|(_, seen)| seen.reply.field("x-pointsman-rule")).collect();
        lints::hold(world, &assembled, &still, &rules_taken, told).map_err(|why| Wrong { request: None, why })
    }

    fn assemble(&self, world: &World) -> Assembled {
        let sources: Vec<Arc<Source>> =
            world.files.iter().map(|file| Source::new(file.name.as_str(), file.yaml())).collect();
        let (set, parsed) = rules::parse_files(&sources);
        assert!(!parsed.has_errors(), "{}", parsed.render());
        let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
        let of = |service: &'static str| {
            let own = world.instances.iter().filter(|instance| instance.service == service);
            (service, own.map(|instance| Arc::new(self.instance(instance))).collect())
        };
        Assembled { set, parsed, router: Arc::new(router), services: vec![of("api"), of("web")] }
    }

    fn instance(&self, from: &model::Instance) -> Instance {
        let address: SocketAddr = self.instances[&from.id].address;
        Instance {
            // Another one in each world: a known one with another version would have to prove itself first.
            identity: format!("{}/{}", self.worlds, from.id).into(),
            id: from.id.as_str().into(),
            service: from.service.into(),
            addr: address,
            host: address.ip().to_string().into(),
            node: "".into(),
            dc: "".into(),
            labels: from.labels.iter().map(|(key, value)| (*key, *value)).collect(),
            tags: from.tags.iter().map(|tag| (*tag).into()).collect(),
            weights: Weights { passing: from.weights.0, warning: from.weights.1 },
            status: match from.status {
                "passing" => Status::Passing,
                "warning" => Status::Warning,
                "critical" => Status::Critical,
                _ => Status::Maintenance,
            },
        }
    }
}

fn table(world: &World, assembled: &Assembled, lives: &mut LiveSet) -> Table {
    let service = |(name, instances): &(&'static str, Vec<Arc<Instance>>)| {
        ServiceSnapshot::build((*name).into(), 1, instances.clone(), lives, Millis(0))
    };
    let services: Vec<_> = assembled.services.iter().map(service).collect();
    let place = inputs::place(world.region, world.zone);
    Table::build(1, Snapshot::new(services), Arc::clone(&assembled.router), place, Millis(0)).expect("they go together")
}

async fn ask(client: &mut Client, request: &Request) -> Seen {
    client.send(request.wire()).await;
    let reply = client.reply_to(request.method).await;
    let draw = reply.field("x-pointsman-draw").unwrap_or_else(|| panic!("{request:?}\n{reply:?}"));
    let cookie = reply.field("set-cookie");
    let minted = cookie.and_then(|cookie| Some(cookie.split_once('=')?.1.split(';').next()?.to_owned()));
    Seen { reply, draw, minted }
}

fn captured(request: &Request, draw: &str) -> TrafficRequest {
    TrafficLine::parse(&request.line(draw).to_string()).and_then(|line| line.request()).expect("it is a request")
}

/// What `replay --each` writes of the same requests as a traffic file.
fn replayed(table: &Table, asked: &[(Request, Seen)]) -> Vec<Value> {
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);
    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines: Vec<String> = asked.iter().map(|(request, seen)| request.line(&seen.draw).to_string()).collect();
    let scene = Scene {
        table,
        luck: ReplayLuck::default(),
        redactions: Redactions::of(&table.router),
        explain: Explain::new(&[], None, &[]),
    };
    let page = Page::default();
    let out: Mutex<Box<dyn Write + Send>> = Mutex::new(Box::new(page.clone()));
    let reading = Reading { format: None, host: "localhost".into(), threads: 1, strict: true };
    let counted = run(lines.join("\n").as_bytes(), &reading, || Counts::new(&scene, Some(&out)), &mut |_| {}).unwrap();
    assert_eq!((counted.requests, counted.skipped.count), (lines.len() as u64, 0), "{:?}", counted.skipped);
    let written = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One request, four times.
struct Compared<'c> {
    world: &'c World,
    request: &'c Request,
    seen: &'c Seen,
    still: &'c Table,
    traffic: &'c TrafficRequest,
    replayed: Value,
}

impl Compared<'_> {
    fn agree(&self, told: &mut Told) -> Result<(), String> {
        told.cases += 1;
        let said = self.explained();
        self.live_and_explain(&said)?;
        self.replay_and_explain(&said)?;
        self.naive_and_explain(&said, told)
    }

    fn explained(&self) -> Explanation {
        let router = &self.still.router;
        let trusted = router.trusts(&self.traffic.host, &self.traffic.path, self.traffic.client);
        let draw = self.traffic.draw.expect("the answer said it");
        explain(self.still, &self.traffic.view(trusted), draw, Millis(0))
    }

    fn live_and_explain(&self, said: &Explanation) -> Result<(), String> {
        let (reply, result) = (&self.seen.reply, &said.result);
        let field = |name: &str| reply.field(&format!("x-pointsman-{name}"));
        same("the rule, live and explained", &field("rule"), &result.rule)?;
        same("the instance, live and explained", &field("instance"), &result.instance)?;
        same("the level, live and explained", &field("level"), &result.level.map(|level| level.to_string()))?;
        same("the pool, live and explained", &field("pool"), &result.pool)?;
        same("the status, live and explained", &reply.status, &result.status.unwrap_or(200))?;
        same("the cookie, live and explained", &reply.field("set-cookie"), &result.set_cookie)?;
        let answers = (result.outcome == Kind::Routed && self.request.method != "HEAD").then(|| reply.text());
        same("who answered, and who should", &answers, &result.instance.clone().filter(|_| answers.is_some()))
    }

    fn replay_and_explain(&self, said: &Explanation) -> Result<(), String> {
        let (result, text) = (&said.result, |key: &str| self.replayed[key].as_str().map(str::to_owned));
        same("the rule, replayed and explained", &text("rule"), &result.rule)?;
        same("the pool, replayed and explained", &text("pool"), &result.pool)?;
        same("the instance, replayed and explained", &text("instance"), &result.instance)?;
        let refused = result.status.filter(|_| result.outcome == Kind::Refused).map(u64::from);
        same("the status, replayed and explained", &self.replayed["status"].as_u64(), &refused)
    }

    fn naive_and_explain(&self, said: &Explanation, told: &mut Told) -> Result<(), String> {
        let naive = verdict(self.world, self.request, self.seen.minted.as_deref());
        let result = &said.result;
        same("the file, naive and explained", &naive.file, &said.file.as_ref().map(|file| file.name.clone()))?;
        same("the rule, naive and explained", &naive.rule, &result.rule)?;
        told.drawn += u64::from(naive.ways.len() > 1);
        told.minted += u64::from(self.seen.minted.is_some());
        told.rerouted += u64::from(result.rerouted);
        let fits = |end: &End| match end {
            End::Status(status, own) => {
                let kinds: &[Kind] = if *own { &[Kind::Redirect, Kind::Respond] } else { &[Kind::Refused] };
                result.status == Some(*status) && kinds.contains(&result.outcome)
            }
            End::Pool { name, levels, .. } => {
                let level = levels.iter().find(|level| Some(level.rank) == result.level);
                result.pool.as_ref() == Some(name)
                    && level.zip(result.instance.as_ref()).is_some_and(|(level, id)| level.members.contains_key(id))
            }
        };
        let Some((_, end)) = naive.ways.iter().find(|(_, end)| fits(end)) else {
            return Err(format!("naively it goes to {:#?}, explained is {result:#?}", naive.ways));
        };
        match end {
            End::Status(_, true) => told.fixed += 1,
            End::Status(_, false) => told.refused += 1,
            End::Pool { panic: true, .. } => told.panics += 1,
            End::Pool { name, levels, .. } => {
                told.routed += 1;
                told.spilled += u64::from(levels.iter().filter(|level| level.load > 0).count() > 1);
                let shown = said.pools.iter().filter(|pool| pool.name == *name).map(levels_of);
                let shown: Vec<_> = shown.collect();
                if !shown.contains(levels) {
                    return Err(format!("levels of {name}: naively {levels:#?}, explained {shown:#?}"));
                }
            }
        }
        self.shares(&naive.ways)
    }

    /// How likely each pool and each status is, exactly.
    fn shares(&self, naive: &[(f64, End)]) -> Result<(), String> {
        let router = &self.still.router;
        let trusted = router.trusts(&self.traffic.host, &self.traffic.path, self.traffic.client);
        let draw = self.traffic.draw.unwrap_or(Draw(0));
        let decision = decide(self.still, &self.traffic.view(trusted), draw, &mut Scratch::new(), &mut NoTrace);
        let Some(file) = decision.file else { return Ok(()) };
        let exact = spread(self.still, &decision);
        let mut ours: BTreeMap<String, f64> = BTreeMap::new();
        for part in &exact.parts {
            let name = match part.outcome {
                Outcome::Pool(choice) => router.files[file as usize].pool_name(choice.pool).to_string(),
                Outcome::Refuse { status, .. } => status.to_string(),
                Outcome::Redirect | Outcome::Respond => "fixed".into(),
            };
            *ours.entry(name).or_default() += part.weight as f64 / exact.total as f64;
        }
        let mut theirs: BTreeMap<String, f64> = BTreeMap::new();
        for (share, end) in naive {
            let name = match end {
                End::Pool { name, .. } => name.clone(),
                End::Status(_, true) => "fixed".into(),
                End::Status(status, false) => status.to_string(),
            };
            *theirs.entry(name).or_default() += share;
        }
        let close = |(a, b): ((&String, &f64), (&String, &f64))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6;
        // A minted key is fixed by the cookie that this answer set; the next one without a cookie gets another.
        if self.seen.minted.is_some() || (ours.len() == theirs.len() && ours.iter().zip(&theirs).all(close)) {
            return Ok(());
        }
        Err(format!("shares: naively {theirs:?}, exactly {ours:?}"))
    }
}

fn levels_of(pool: &pointsman::engine::format::explanation::PoolNote) -> Vec<naive::Level> {
    let level = |level: &pointsman::engine::format::explanation::LevelNote| naive::Level {
        rank: level.rank,
        load: u64::from(level.load),
        members: level.candidates.iter().map(|candidate| (candidate.id.clone(), candidate.weight)).collect(),
    };
    pool.levels.iter().map(level).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?}, {other:?}")) }
}

/// The smallest world and request found on which they still disagree: rules, instances and fields are left out one by
/// one for as long as it stays wrong.
async fn smaller(stage: &mut Stage, world: World, wrong: Wrong) -> (World, Option<Request>, String) {
    let (mut world, Wrong { mut request, mut why }) = (world, wrong);
    let mut at = 0;
    loop {
        let Some((next_world, next_request)) = without(&world, request.as_ref(), at) else {
            return (world, request, why);
        };
        let requests: Vec<Request> = next_request.iter().flat_map(|request| vec![request.clone(); 8]).collect();
        match stage.play(&next_world, &requests, &mut Told::default()).await {
            Err(still) if still.request.is_some() == request.is_some() => {
                (world, request, why) = (next_world, next_request.or(still.request), still.why);
            }
            _ => at += 1,
        }
    }
}

/// The nth thing left out; `None`: there are no more.
fn without(world: &World, request: Option<&Request>, mut at: usize) -> Option<(World, Option<Request>)> {
    let (mut world, mut request) = (world.clone(), request.cloned());
    for file in &mut world.files {
        if at < file.rules.len() && file.rules.len() > 1 {
            file.rules.remove(at);
            return Some((world, request));
        }
        at = at.saturating_sub(if file.rules.len() > 1 { file.rules.len() } else { 0 });
    }
    if at < world.instances.len() {
        world.instances.remove(at);
        return Some((world, request));
    }
    at -= world.instances.len();
    let asked = request.as_mut()?;
    if at < asked.headers.len() {
        asked.headers.remove(at);
    } else if at < asked.headers.len() + asked.query.len() {
        asked.query.remove(at - asked.headers.len());
    } else if at < asked.headers.len() + asked.query.len() + asked.cookies.len() {
        asked.cookies.remove(at - asked.headers.len() - asked.query.len());
    } else {
        return None;
    }
    Some((world, request))
}
