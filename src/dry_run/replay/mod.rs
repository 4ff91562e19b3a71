//! `replay`: where captured requests would go. Every request is decided and picked for by the proxy's own functions.

mod redacted;
mod report;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::command::{Explain, read_headers, url};
use super::settle::settle;
use super::traffic::Captured;
use super::traffic::stream::{SHOWN, Tally};
use crate::engine::balance::Picked;
use crate::engine::format::traffic::shown_draw;
use crate::engine::route::{Decision, Detail, FileIdx, Outcome, RuleIdx, Scratch, Step, decide};
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};
use crate::engine::trace::NoTrace;
pub use redacted::Redactions;
pub(super) use report::skipped;
pub use report::{Report, Row, Unrouted};

/// How luck and time are given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Luck {
    /// `None`: a line's own draw where it names one, and seed 0 where it does not. With a seed every draw comes from
    /// the seed and the line's number.
    pub seed: Option<u64>,
    /// The moment at which everybody is picked for, since the table was made.
    pub now: Millis,
}

impl Luck {
    /// The draw of the request at a line.
    #[must_use]
    pub fn of(&self, line: u64, captured: &Captured) -> Draw {
        match (self.seed, captured.request.draw) {
            (None, Some(draw)) => draw,
            (seed, _) => Draw(seed.unwrap_or(0)).fork(line),
        }
    }
}

/// What replaying needs to know; shared by the threads.
#[derive(Debug)]
pub struct Scene<'t> {
    /// The table that decides.
    pub table: &'t Table,
    /// Luck and time.
    pub luck: Luck,
    /// Who reads what may be redacted.
    pub redactions: Redactions,
    /// What to print beside an example.
    pub explain: Explain,
}

/// Where one request goes.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What the rules decided.
    pub decision: Decision,
    /// What came of it after empty pools.
    pub outcome: Outcome,
    /// Whom it goes to.
    pub picked: Option<Picked>,
}

/// Decides one captured request.
#[must_use]
pub fn place(scene: &Scene<'_>, captured: &Captured, draw: Draw, scratch: &mut Scratch) -> Placed {
    let (request, router) = (&captured.request, &scene.table.router);
    let view = request.view(router.trusts(&request.host, &request.path, request.sender()));
    let decision = decide(scene.table, &view, draw, scratch, &mut NoTrace);
    let (outcome, picked) = settle(scene.table, &decision, draw, scene.luck.now, &mut NoTrace);
    Placed { decision, outcome, picked }
}

/// A request that can be looked at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Example {
    /// Where it stands.
    pub line: u64,
    /// Method and URL.
    pub request: String,
    /// The command that explains it.
    pub explain: String,
}

/// What cannot be routed, by why.
type Refusals = BTreeMap<(u16, &'static str, Option<FileIdx>), (u64, Vec<Example>)>;

/// One thread's counts.
pub struct Counts<'t> {
    scene: &'t Scene<'t>,
    scratch: Scratch,
    /// By file and rule; the last is "no rule".
    rules: Vec<Vec<u64>>,
    /// By file and compiled slot.
    pools: Vec<Vec<u64>>,
    /// By file and endpoint.
    endpoints: Vec<Vec<u64>>,
    /// By locality level.
    levels: BTreeMap<u8, u64>,
    /// By step of the order of resort.
    steps: BTreeMap<Step, u64>,
    /// Requests whose own arm had nobody.
    rerouted: u64,
    /// Requests that get a redirect or a fixed answer.
    answered: u64,
    refusals: Refusals,
    /// By file and rule: requests whose redacted fields it reads.
    not_replayable: BTreeMap<(FileIdx, RuleIdx), u64>,
    each: Option<Each<'t>>,
    /// Why a place could not be written.
    pub failed: Option<io::Error>,
}

/// Where to write every request's place, as JSON lines. In the order of the requests only with one thread.
pub type Each<'t> = &'t Mutex<Box<dyn Write + Send>>;

impl<'t> Counts<'t> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(scene: &'t Scene<'t>, each: Option<Each<'t>>) -> Self {
        let files = &scene.table.router.files;
        Self {
            scene,
            scratch: Scratch::new(),
            rules: files.iter().map(|file| vec![0; file.rules.len() + 1]).collect(),
            pools: files.iter().map(|file| vec![0; file.pools.len()]).collect(),
            endpoints: scene.table.files.iter().map(|file| vec![0; file.endpoints().len()]).collect(),
            levels: BTreeMap::new(),
            steps: BTreeMap::new(),
            rerouted: 0,
            answered: 0,
            refusals: Refusals::new(),
            not_replayable: BTreeMap::new(),
            each,
            failed: None,
        }
    }

    fn count(&mut self, line: u64, captured: &Captured, draw: Draw, placed: &Placed) {
        let (decision, scene) = (&placed.decision, self.scene);
        if let Some(file) = decision.file {
            let rules = &mut self.rules[file as usize];
            let at = decision.rule.map_or(rules.len() - 1, |rule| rule as usize);
            rules[at] += 1;
        }
        self.rerouted += u64::from(decision.rerouted);
        match (placed.outcome, decision.file, placed.picked) {
            (Outcome::Pool(choice), Some(file), Some(picked)) => {
                self.pools[file as usize][choice.pool as usize] += 1;
                self.endpoints[file as usize][picked.endpoint as usize] += 1;
                *self.levels.entry(picked.level).or_default() += 1;
                *self.steps.entry(choice.step).or_default() += 1;
            }
            (Outcome::Redirect | Outcome::Respond, ..) => self.answered += 1,
            (outcome, ..) => {
                let (status, detail) = match outcome {
                    Outcome::Refuse { status, detail } => (status, detail),
                    _ => (503, Detail::NoRoutableInstance),
                };
                let key = (status, detail.word(), decision.file);
                let (count, examples) = self.refusals.entry(key).or_default();
                *count += 1;
                if examples.len() < SHOWN {
                    examples.push(example(scene, line, captured, draw, decision.file));
                }
            }
        }
    }
}

impl Tally for Counts<'_> {
    fn request(&mut self, line: u64, captured: &Captured) {
        let draw = self.scene.luck.of(line, captured);
        let placed = place(self.scene, captured, draw, &mut self.scratch);
        let unknown = self.scene.redactions.reader(&captured.redacted, &placed.decision);
        if let (Some(each), None) = (self.each, &self.failed) {
            let place = shown(self.scene.table, line, draw, &placed, unknown.is_some());
            let mut out = each.lock().unwrap_or_else(PoisonError::into_inner);
            self.failed = writeln!(out, "{place}").err();
        }
        match unknown {
            Some(reader) => *self.not_replayable.entry(reader).or_default() += 1,
            None => self.count(line, captured, draw, &placed),
        }
    }

    fn merge(&mut self, other: Self) {
        for (ours, theirs) in
            [(&mut self.rules, other.rules), (&mut self.pools, other.pools), (&mut self.endpoints, other.endpoints)]
        {
            let pairs = ours.iter_mut().flatten().zip(theirs.into_iter().flatten());
            pairs.for_each(|(ours, theirs)| *ours += theirs);
        }
        other.levels.into_iter().for_each(|(level, count)| *self.levels.entry(level).or_default() += count);
        other.steps.into_iter().for_each(|(step, count)| *self.steps.entry(step).or_default() += count);
        other.not_replayable.into_iter().for_each(|(at, count)| *self.not_replayable.entry(at).or_default() += count);
        for (key, (count, examples)) in other.refusals {
            let ours = self.refusals.entry(key).or_default();
            ours.0 += count;
            merge_examples(&mut ours.1, examples);
        }
        self.rerouted += other.rerouted;
        self.answered += other.answered;
        self.failed = self.failed.take().or(other.failed);
    }
}

/// Keeps the first few by line.
pub(super) fn merge_examples(ours: &mut Vec<Example>, theirs: Vec<Example>) {
    ours.extend(theirs);
    ours.sort();
    ours.truncate(SHOWN);
}

fn example(scene: &Scene<'_>, line: u64, captured: &Captured, draw: Draw, file: Option<FileIdx>) -> Example {
    let request = &captured.request;
    let headers = read_headers(&scene.table.router, file, &request.headers);
    Example {
        line,
        request: format!("{} {}", request.method, url(request)),
        explain: scene.explain.request(request, &headers, draw),
    }
}

fn shown(table: &Table, line: u64, draw: Draw, placed: &Placed, unknown: bool) -> serde_json::Value {
    let file = placed.decision.file.map(|file| &table.router.files[file as usize]);
    let rule = file.zip(placed.decision.rule).map(|(file, rule)| &*file.rules[rule as usize].name);
    let (pool, status) = match placed.outcome {
        Outcome::Pool(choice) => (file.map(|file| &**file.pool_name(choice.pool)), None),
        Outcome::Refuse { status, .. } => (None, Some(status)),
        Outcome::Redirect | Outcome::Respond => (None, None),
    };
    let instance = placed.decision.file.zip(placed.picked);
    let instance = instance.map(|(file, picked)| &*table.endpoint(file, picked.endpoint).instance.id);
    serde_json::json!({
        "line": line,
        "service": file.map(|file| &*file.service),
        "rule": rule,
        "pool": pool,
        "instance": instance,
        "status": status,
        "draw": shown_draw(draw),
        "replayable": !unknown,
    })
}
