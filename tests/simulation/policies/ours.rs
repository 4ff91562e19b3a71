//! pointsman: the engine that routes, and the loop around it as `forward::request` walks it. Rules are text, parsed
//! and compiled; verdicts are the live states'; the table is published anew 5 ms after a transition.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method};
use pointsman::engine::balance::Memory;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::health::Evidence;
use pointsman::engine::instance::{Instance, Status, Weights};
use pointsman::engine::limit::Budget;
use pointsman::engine::locality::Place;
use pointsman::engine::request::RequestView;
use pointsman::engine::route::{Outcome, Router, Scratch, decide};
use pointsman::engine::rules;
use pointsman::engine::snapshot::{Live, LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;
use pointsman::engine::tries::Tries;
use pointsman::forward::retry::{Cause, backoff};

use super::{Policy, Setting};
use crate::fleet::{Answer, Fleet, Patience};
use crate::scenario::{Fault, in_own_zone, is_canary};
use crate::time::{MS, SECOND, Time};

/// How long the publisher takes at most (SEMANTICS.md, *Publishing*).
const PUBLISHED_AFTER: u64 = 5 * MS;

pub struct Ours {
    time: Rc<Time>,
    fleet: Rc<Fleet>,
    table: RefCell<Arc<Table>>,
    scratch: RefCell<Scratch>,
    budget: Budget,
    memory: Memory,
    luck: Cell<u64>,
    publishing: Cell<bool>,
    moved: RefCell<Vec<Arc<Live>>>,
}

impl Ours {
    pub fn new(setting: &Setting, balance: &str) -> Rc<Self> {
        let split = "split: {canary: 50%, stable: 50%}";
        let rule = if setting.fault.is_split() { split } else { "to: all" };
        // The textbook policies know no zones; ours prefers its own only where that is what is tried.
        let locality = if setting.fault == Fault::OwnZoneLost { "locality: {prefer: [region, zone]}\n" } else { "" };
        let text = format!(
            "service: web\nbalance: {balance}\n{locality}\
             pools: {{all: version exists, canary: version == 2, stable: version == 1}}\n\
             rules: [{{name: everybody, {rule}}}]\n"
        );
        let (set, out) = rules::parse_files(&[Source::new("rules/web.yaml", text)]);
        assert!(!out.has_errors(), "{}", out.render());
        let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
        let size = setting.fleet.size();
        let instances = (0..size).map(|at| Arc::new(instance(at, size))).collect();
        let service = ServiceSnapshot::build("web".into(), 1, instances, &mut LiveSet::default(), Millis(0));
        let place = Place::new([("region", "eu"), ("zone", "a")].into_iter().collect());
        let table = Table::build(1, Snapshot::new([service]), Arc::new(router), place, Millis(0));
        Rc::new(Self {
            time: Rc::clone(&setting.time),
            fleet: Rc::clone(&setting.fleet),
            table: RefCell::new(Arc::new(table.expect("the rules fit the catalog"))),
            scratch: RefCell::new(Scratch::new()),
            budget: Budget::new(1),
            memory: Memory::default(),
            luck: Cell::new(setting.seed),
            publishing: Cell::new(false),
            moved: RefCell::default(),
        })
    }

    fn draw(&self) -> Draw {
        let mut stream = Draw(self.luck.get());
        let draw = stream.advance();
        self.luck.set(stream.0);
        Draw(draw)
    }

    /// What `forward` tells an endpoint's live state, and what the publisher does about it.
    fn told(self: &Rc<Self>, live: &Arc<Live>, answer: Answer, last_resort: bool, table: &Table) {
        let policy = &table.router.files[0].eject;
        let now = self.time.millis();
        let mut moved = live.record(evidence(answer), now, policy, Draw(self.luck.get() ^ live.id));
        if last_resort && answer.is_good() {
            moved = moved.or(live.prove(now));
        }
        live.end();
        if moved.is_none() {
            return;
        }
        self.moved.borrow_mut().push(Arc::clone(live));
        if self.publishing.replace(true) {
            return;
        }
        let ours = Rc::clone(self);
        self.time.spawn_at(self.time.now() + PUBLISHED_AFTER, async move {
            ours.publishing.set(false);
            let moved = ours.moved.take();
            let table = Arc::clone(&ours.table.borrow());
            let next = table.with_health(table.generation + 1, &moved, ours.time.millis());
            ours.table.replace(Arc::new(next));
        });
    }

    async fn request(self: Rc<Self>) -> Answer {
        let draw = self.draw();
        let table = Arc::clone(&self.table.borrow());
        let headers = HeaderMap::new();
        let request = RequestView {
            method: &Method::GET,
            scheme: "http",
            host: "web.test",
            path: "/",
            query: None,
            headers: &headers,
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            sni: None,
            san: &[],
            trusted: true,
        };
        let decision = decide(&*table, &request, draw, &mut self.scratch.borrow_mut(), &mut NoTrace);
        let (Some(file), Outcome::Pool(_) | Outcome::Refuse { status: 503, .. }) = (decision.file, decision.outcome)
        else {
            return Answer::Status(404);
        };
        let rule = decision.rule.map(|rule| &table.router.files[file as usize].rules[rule as usize]);
        let retry = &rule.expect("the rule has no condition").policies.retry;
        self.budget.request(0, self.time.millis());
        let mut tries = Tries::new(&table, file, &decision, draw, Some(&self.memory));
        let Ok(mut picked) = tries.first(self.time.millis(), retry.attempts > 1) else { return Answer::Status(503) };
        let mut attempts = 0;
        loop {
            attempts += 1;
            tries.note(picked);
            let endpoint = table.endpoint(file, picked.endpoint);
            endpoint.live.begin();
            let started = self.time.now();
            let answer = self.fleet.attempt(number(&endpoint.instance.id), Patience::default()).await;
            // As `forward::latency` charges failures.
            let took = if answer.is_good() { self.time.now() - started } else { 5 * SECOND };
            endpoint.live.observe_latency(took, self.time.millis());
            self.told(&endpoint.live, answer, picked.last_resort, &table);
            let Some(cause) = cause(answer).filter(|cause| cause.is_wanted(retry)) else { return answer };
            if attempts >= retry.attempts {
                return answer;
            }
            let now = self.time.millis();
            let next = tries.next(now, attempts + 1 >= retry.attempts, cause == Cause::Connect);
            let Some(next) = next.filter(|_| self.budget.take(0, now, retry.budget)) else { return answer };
            self.time.sleep(backoff(attempts, draw) * MS).await;
            picked = next;
        }
    }
}

impl Policy for Ours {
    fn send(self: Rc<Self>, _: u64) -> Pin<Box<dyn Future<Output = Answer>>> {
        Box::pin(self.request())
    }
}

fn evidence(answer: Answer) -> Evidence {
    match answer {
        Answer::Status(status) => Evidence::of_status(status),
        Answer::Refused | Answer::NoConnection => Evidence::Connect,
        Answer::TooLate => Evidence::Timeout,
    }
}

fn cause(answer: Answer) -> Option<Cause> {
    match answer {
        Answer::Status(_) if answer.is_good() => None,
        Answer::Status(status) => Some(Cause::Status(status)),
        Answer::Refused | Answer::NoConnection => Some(Cause::Connect),
        Answer::TooLate => Some(Cause::Timeout),
    }
}

fn instance(at: usize, size: usize) -> Instance {
    let zone = if in_own_zone(at, size) { "a" } else { "b" };
    let version = if is_canary(at) { "2" } else { "1" };
    Instance {
        identity: format!("web-{at}").into(),
        id: format!("web-{at}").into(),
        service: "web".into(),
        addr: ([127, 0, 0, 1], 1_000 + at as u16).into(),
        host: "127.0.0.1".into(),
        node: "".into(),
        dc: "".into(),
        labels: [("version", version), ("region", "eu"), ("zone", zone)].into_iter().collect(),
        tags: [].into(),
        weights: Weights::default(),
        status: Status::Passing,
    }
}

fn number(id: &str) -> usize {
    id.trim_start_matches("web-").parse().expect("an id that `instance` made")
}
