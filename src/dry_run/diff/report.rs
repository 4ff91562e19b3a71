//! What a diff says, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::keys::Keys;
use super::shift::{Stop, WHOLE};
use super::tally::{Example, Moves};
use super::why::Why;
use crate::dry_run::numbers::{columns, counted, percent, thousands};
use crate::dry_run::replay::Row;
use crate::dry_run::traffic::stream::Skipped;
use crate::engine::table::Table;

/// Everything that was compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Requests compared.
    pub requests: u64,
    /// Lines that could not be read.
    pub skipped: Skipped,
    /// The part of the requests that goes elsewhere, from 0 to 1; exact.
    pub moved: f64,
    /// Of it, what a turned knob of a split explains.
    pub expected: f64,
    /// Of it, what nothing explains.
    pub surprising: f64,
    /// The keys of splits.
    pub keys: Keys,
    /// Requests refused before.
    pub unrouted_before: u64,
    /// Requests refused after.
    pub unrouted_after: u64,
    /// Requests refused after that were not before.
    pub newly_unrouted: u64,
    /// The first few of these.
    pub newly_unrouted_examples: Vec<Example>,
    /// The moves: surprises first, the largest first.
    pub classes: Vec<Class>,
    /// By instance, what it is expected to get.
    pub load: Vec<Load>,
    /// The part of the routed requests that leaves the proxy's region, before and after; absent when it is not known
    /// where the proxy is.
    pub cross_region: Option<[f64; 2]>,
    /// By rule, requests left out because it reads what was redacted.
    pub not_replayable: Vec<Row>,
    /// What the figures leave out of account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<&'static str>,
}

/// Moves of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Where they went.
    pub from: Stop,
    /// Where they go.
    pub to: Stop,
    /// Why.
    pub why: Why,
    /// Whether that was to be expected.
    pub expected: bool,
    /// Their part of all requests, from 0 to 1.
    pub share: f64,
    /// How many that is.
    pub requests: f64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// What one instance gets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// `service/id`.
    pub instance: String,
    /// Requests before.
    pub before: f64,
    /// Requests after.
    pub after: f64,
}

/// Rows of a table of loads that people are shown.
const LOADS_SHOWN: usize = 20;

impl Moves<'_> {
    /// The report.
    #[must_use]
    pub fn report(mut self, skipped: Skipped) -> Report {
        self.sum_up();
        let whole = u128::from(self.compared) * u128::from(WHOLE);
        let part = |sum: u128| if whole == 0 { 0.0 } else { sum as f64 / whole as f64 };
        let mut expected = 0;
        let mut classes: Vec<Class> = Vec::with_capacity(self.classes.len());
        for ((from, to, why), (sum, examples)) in self.classes {
            expected += if why.expected() { sum } else { 0 };
            let requests = sum as f64 / WHOLE as f64;
            let class = Class { from, to, why, expected: why.expected(), share: part(sum), requests, examples };
            classes.push(class);
        }
        classes.sort_by(|a, b| a.expected.cmp(&b.expected).then(b.share.total_cmp(&a.share)));
        let routed: [f64; 2] = [0, 1].map(|side: usize| self.load.values().map(|load| load[side]).sum());
        let ratio = |side: usize| if routed[side] > 0.0 { tidy(self.crossing[side] / routed[side]) } else { 0.0 };
        let knows = |table: &Table| table.place.labels.value("region").is_some();
        let cross_region = (knows(self.scene.old) && knows(self.scene.new)).then(|| [ratio(0), ratio(1)]);
        let read = self.compared + self.not_replayable.values().sum::<u64>();
        let not_replayable = self.not_replayable.iter().map(|((side, file, rule), count)| {
            let (table, side) = [(self.scene.old, "old"), (self.scene.new, "new")][*side];
            let file = &table.router.files[*file as usize];
            let name = format!("{side}: {}/{}", file.service, file.rules[*rule as usize].name);
            Row { name, requests: *count, share: *count as f64 / read as f64 }
        });
        let [unrouted_before, unrouted_after, newly_unrouted] = self.refused;
        Report {
            requests: self.compared,
            skipped,
            moved: part(self.moved),
            expected: part(expected.min(self.moved)),
            surprising: part(self.moved.saturating_sub(expected)),
            keys: self.keys.keys(),
            unrouted_before,
            unrouted_after,
            newly_unrouted,
            newly_unrouted_examples: self.newly_refused,
            classes,
            load: self
                .load
                .iter()
                .map(|(name, [before, after])| Load {
                    instance: name.to_string(),
                    before: tidy(*before),
                    after: tidy(*after),
                })
                .collect(),
            cross_region,
            not_replayable: not_replayable.collect(),
            notes: notes([self.scene.old, self.scene.new]),
        }
    }
}

/// What loads by weight do not show.
fn notes(tables: [&Table; 2]) -> Vec<&'static str> {
    let files = || tables.iter().flat_map(|table| &table.router.files);
    let slow = files().any(|file| file.slow_start.is_on());
    let slow = slow.then_some("slow_start is over: loads are by weight, also of an instance that the other side lacks");
    slow.into_iter().collect()
}

/// Sums of shares come in another order with every run; the last digits are noise.
fn tidy(requests: f64) -> f64 {
    (requests * 1e6).round() / 1e6
}

impl Report {
    /// Why the exit status is 1; empty when no limit is exceeded. `max_moved` is a part of one.
    #[must_use]
    pub fn exceeded(&self, max_moved: Option<f64>, max_unrouted: Option<u64>) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(limit) = max_moved.filter(|limit| self.moved > limit + 1e-12) {
            found.push(format!("{} of the requests moved, more than {}", percent(self.moved), percent(limit)));
        }
        if let Some(limit) = max_unrouted.filter(|limit| self.newly_unrouted > *limit) {
            let (newly, limit) = (thousands(self.newly_unrouted), thousands(limit));
            found.push(format!("{newly} requests are unrouted that were not before, more than {limit}"));
        }
        found
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}: {} moved ({} expected, {} surprising)\n",
            counted(self.requests, "request"),
            percent(self.moved),
            percent(self.expected),
            percent(self.surprising)
        );
        if self.keys.seen > 0 {
            let about = if self.keys.estimated { "about " } else { "" };
            let _ =
                writeln!(out, "{about}{}: {about}{} moved", counted(self.keys.seen, "key"), percent(self.keys.moved));
        }
        let [before, after, newly] = [self.unrouted_before, self.unrouted_after, self.newly_unrouted].map(thousands);
        let _ = writeln!(out, "unrouted: {before} before, {after} after, {newly} newly");
        if let Some([before, after]) = self.cross_region {
            let _ = writeln!(out, "cross-region: {} before, {} after", percent(before), percent(after));
        }
        for (title, expected) in [("surprises", false), ("expected moves", true)] {
            let classes: Vec<_> = self.classes.iter().filter(|class| class.expected == expected).collect();
            if !classes.is_empty() {
                let _ = writeln!(out, "\n{title}");
                classes.iter().for_each(|class| class.text(&mut out));
            }
        }
        if !self.newly_unrouted_examples.is_empty() {
            let _ = writeln!(out, "\nnewly unrouted");
            examples(&mut out, &self.newly_unrouted_examples);
        }
        self.loads(&mut out);
        if !self.not_replayable.is_empty() {
            let _ = writeln!(out, "\nleft out: a rule reads what was redacted");
            for row in &self.not_replayable {
                let _ = writeln!(out, "  {}: {}", row.name, thousands(row.requests));
            }
        }
        for note in &self.notes {
            let _ = writeln!(out, "\nnote: {note}");
        }
        crate::dry_run::replay::skipped(&mut out, &self.skipped);
        out
    }

    /// Instances whose load changes, the largest change first.
    fn loads(&self, out: &mut String) {
        let mut changed: Vec<&Load> = self.load.iter().filter(|load| load.change().abs() >= 0.05).collect();
        if changed.is_empty() {
            return;
        }
        changed.sort_by(|a, b| b.change().abs().total_cmp(&a.change().abs()).then(a.instance.cmp(&b.instance)));
        let head = ["instance", "requests before", "after", "change"].map(str::to_owned);
        let row = |load: &&Load| {
            let change = format!("{:+.1}", load.change());
            [load.instance.clone(), format!("{:.1}", load.before), format!("{:.1}", load.after), change]
        };
        let lines: Vec<_> = std::iter::once(head).chain(changed.iter().take(LOADS_SHOWN).map(row)).collect();
        let _ = write!(out, "\n{}", columns(&lines));
        if changed.len() > LOADS_SHOWN {
            let _ = writeln!(out, "and {} more", changed.len() - LOADS_SHOWN);
        }
    }
}

impl Load {
    fn change(&self) -> f64 {
        self.after - self.before
    }
}

impl Class {
    fn text(&self, out: &mut String) {
        let (share, from, to) = (percent(self.share), self.from.words(), self.to.words());
        let _ = writeln!(out, "  {share} ({:.1} requests): {from} -> {to}: {}", self.requests, self.why.words());
        examples(out, &self.examples);
    }
}

impl Stop {
    /// In words: `web/testers to gray`.
    #[must_use]
    pub fn words(&self) -> String {
        [&*self.rule, &*self.goal].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" to ")
    }
}

fn examples(out: &mut String, examples: &[Example]) {
    for example in examples {
        let _ = writeln!(out, "    line {}: {}", example.line, example.request);
        let _ = writeln!(out, "      before: {}\n      after:  {}", example.before, example.after);
    }
}
