//! Shadow rules beside the live ones: what workers evaluate, what they count, and the lines of disagreements.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::access_log::{Formatter, ReadFields, Record};
use super::line_writer::{self, LineFigures, LineThread, Lines, Target};
use super::metrics::cells::Tally;
use crate::engine::policy::WHOLE;
use crate::engine::route::Router;
use crate::engine::table::Table;

/// Shadow rules over the same instances as one generation of the live table. Replaced as a whole by the publisher.
#[derive(Debug)]
pub struct Candidate {
    /// The generation of the live table that it was made beside; decisions of another one are not compared.
    pub live: u64,
    /// The shadow rules as they were given; the table's may name services besides that the catalog made of them.
    pub rules: Arc<Router>,
    /// The shadow rules' own table.
    pub table: Arc<Table>,
    /// Counts since these shadow rules and these live rules stand beside each other.
    pub figures: Arc<Figures>,
    /// What the rules of both read.
    pub fields: Arc<ReadFields>,
}

/// Where it is published; empty: there is none.
pub type Slot = Arc<ArcSwapOption<Candidate>>;

/// Decisions of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Class {
    /// `service/rule` of the live decision, and where it leads (empty where both agree).
    pub live: [String; 2],
    /// The same of the shadow rules.
    pub shadow: [String; 2],
    /// Why they differ; `None`: they agree.
    pub why: Option<&'static str>,
    /// A turned knob of a split explains it.
    pub expected: bool,
    /// Refused under the shadow rules and not under the live ones.
    pub newly_unrouted: bool,
}

/// One worker's counts of one class.
#[derive(Debug, Default)]
pub struct Cells {
    /// Requests.
    pub requests: Tally,
    /// What of them goes elsewhere, in millionths of a request.
    pub moved: Tally,
}

/// What was counted. Locked to find or create cells and to read, never to count.
#[derive(Debug)]
pub struct Figures {
    /// The first moment that is counted.
    pub since: SystemTime,
    /// Requests that were not compared, because a worker had no time left for pairs that it did not know.
    pub skipped: Tally,
    cells: Mutex<BTreeMap<(Class, usize), Arc<Cells>>>,
}

/// Classes times workers that are counted apart; further ones lose their names.
const MOST_CELLS: usize = 16_384;

/// The sums of all workers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sums {
    /// Requests compared.
    pub requests: u64,
    /// Requests that were not compared, because too many kinds of them were new at once.
    pub skipped: u64,
    /// Requests that agree.
    pub agreeing: u64,
    /// The part of the requests that goes elsewhere, from 0 to 1.
    pub moved: f64,
    /// Requests that would be unrouted and are not.
    pub newly_unrouted: u64,
    /// By class, the largest move first.
    pub classes: Vec<ClassSum>,
}

/// The sum of one class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassSum {
    /// Which.
    #[serde(flatten)]
    pub class: Class,
    /// Requests.
    pub requests: u64,
    /// What of all requests it moves, from 0 to 1.
    pub moved: f64,
}

impl Default for Figures {
    fn default() -> Self {
        Self { since: SystemTime::now(), skipped: Tally::default(), cells: Mutex::default() }
    }
}

impl Figures {
    /// A worker's cells of a class.
    #[must_use]
    pub fn cells(&self, class: &Class, worker: usize) -> Arc<Cells> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut class = class.clone();
        if cells.len() >= MOST_CELLS && !cells.contains_key(&(class.clone(), worker)) {
            (class.live, class.shadow) = Default::default();
        }
        Arc::clone(cells.entry((class, worker)).or_default())
    }

    /// The sums as of about now.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut classes: BTreeMap<Class, [u64; 2]> = BTreeMap::new();
        for ((class, _), cells) in self.cells.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sum = classes.entry(class.clone()).or_default();
            sum[0] += cells.requests.value();
            sum[1] += cells.moved.value();
        }
        let count = |wanted: &dyn Fn(&Class) -> bool| -> u64 {
            classes.iter().filter(|(class, _)| wanted(class)).map(|(_, sum)| sum[0]).sum()
        };
        let requests = count(&|_| true);
        let share = |moved: u64| moved as f64 / f64::from(WHOLE) / requests.max(1) as f64;
        let mut sums = Sums {
            requests,
            skipped: self.skipped.value(),
            agreeing: count(&|class| class.why.is_none()),
            moved: share(classes.values().map(|sum| sum[1]).sum()),
            newly_unrouted: count(&|class| class.newly_unrouted),
            classes: Vec::new(),
        };
        let one = |(class, [requests, moved]): (Class, [u64; 2])| ClassSum { class, requests, moved: share(moved) };
        sums.classes = classes.into_iter().map(one).collect();
        sums.classes.sort_by(|a, b| b.moved.total_cmp(&a.moved));
        sums
    }
}

/// A request about which the rules disagree.
#[derive(Debug)]
pub struct Disagreement {
    /// The request; where it went is in the class.
    pub record: Record,
    /// Which kind.
    pub class: Arc<Class>,
    /// How much of it goes elsewhere, per million.
    pub moved: u64,
}

/// Disagreements that are kept to be shown.
const SHOWN: usize = 20;

/// Lines of disagreements, off the requests' threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShadowLog {
    lines: Lines<Box<Disagreement>>,
    last: Arc<Mutex<VecDeque<Value>>>,
}

impl ShadowLog {
    /// Starts the writer. `target`: `None` keeps the last few only.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(target: Option<&Target>, queue: usize, redact: &[String]) -> io::Result<(Self, LineThread)> {
        let mut formatter = Formatter::new(redact);
        let last: Arc<Mutex<VecDeque<Value>>> = Arc::default();
        let (kept, writes) = (Arc::clone(&last), target.is_some());
        let format = move |disagreement: Box<Disagreement>, out: &mut Vec<u8>| {
            let Some(line) = line(&mut formatter, &disagreement) else { return };
            if writes {
                out.extend_from_slice(Value::Object(line.clone()).to_string().as_bytes());
                out.push(b'\n');
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= SHOWN {
                kept.pop_front();
            }
            kept.push_back(Value::Object(line));
        };
        let (lines, thread) = line_writer::spawn("shadow-log", target.unwrap_or(&Target::Stderr), queue, format)?;
        Ok((Self { lines, last }, thread))
    }

    /// Hands a disagreement to the writer; never waits, drops and counts it when the queue is full.
    pub fn send(&self, disagreement: Box<Disagreement>) {
        self.lines.send(disagreement);
    }

    /// Counts a disagreement that was not even copied.
    pub fn give_up(&self) {
        self.lines.give_up();
    }

    /// Asks for the file to be opened again (SIGHUP).
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// The last few as lines, the oldest first.
    #[must_use]
    pub fn last(&self) -> Vec<Value> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The counts as metrics, under the label `shadow`.
    #[must_use]
    pub fn figures(&self) -> LineFigures<Box<Disagreement>> {
        LineFigures { log: "shadow", lines: self.lines.clone() }
    }
}

/// A traffic line, and both results in place of the access log's one.
fn line(formatter: &mut Formatter, disagreement: &Disagreement) -> Option<Map<String, Value>> {
    let Disagreement { record, class, moved } = disagreement;
    let mut text = Vec::new();
    formatter.line(record, &mut text);
    let mut line: Map<String, Value> = serde_json::from_slice(&text).ok()?;
    line.remove("result");
    let side = |[rule, goal]: &[String; 2]| json!({ "rule": rule, "goal": goal });
    line.insert("live".to_owned(), side(&class.live));
    line.insert("shadow".to_owned(), side(&class.shadow));
    line.insert("why".to_owned(), json!(class.why));
    line.insert("expected".to_owned(), json!(class.expected));
    line.insert("moved".to_owned(), json!(*moved as f64 / f64::from(WHOLE)));
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(why: Option<&'static str>, newly_unrouted: bool) -> Class {
        let side = |goal: &str| ["web/all".to_owned(), goal.to_owned()];
        Class { live: side("old"), shadow: side("new"), why, expected: false, newly_unrouted }
    }

    #[test]
    fn the_moved_share_is_of_all_requests_of_all_workers() {
        let figures = Figures::default();
        for (worker, agreeing, moving) in [(0, 50, 30), (1, 10, 10)] {
            figures.cells(&class(None, false), worker).requests.add(agreeing);
            let cells = figures.cells(&class(Some("a condition changed"), worker == 1), worker);
            cells.requests.add(moving);
            cells.moved.add(moving * u64::from(WHOLE));
        }
        let sums = figures.sums();
        assert_eq!((sums.requests, sums.agreeing, sums.newly_unrouted), (100, 60, 10));
        assert!((sums.moved - 0.4).abs() < 1e-9, "{}", sums.moved);
        assert_eq!((sums.classes[0].requests, sums.classes.len()), (30, 3));
    }
}
