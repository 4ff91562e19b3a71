//! What a replay says, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Counts, Example};
use crate::dry_run::numbers::{columns, counted, percent, thousands};
use crate::dry_run::traffic::stream::Skipped;
use crate::engine::label::Text;
use crate::engine::route::Step;

/// Everything that was counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Requests that were read.
    pub requests: u64,
    /// Lines that were not.
    pub skipped: Skipped,
    /// Requests that go to an instance.
    pub routed: u64,
    /// Requests that get a redirect or a fixed answer.
    pub answered: u64,
    /// Requests that are refused.
    pub unrouted: u64,
    /// Requests whose own arm of a split had nobody routable.
    pub rerouted: u64,
    /// By rule, as `service/rule`.
    pub rules: Vec<Row>,
    /// By pool, as `service/pool`.
    pub pools: Vec<Row>,
    /// By label of the instance, such as `version`.
    pub labels: BTreeMap<String, Vec<Row>>,
    /// By instance, as `service/id`; those with nothing included.
    pub instances: Vec<Row>,
    /// By step of the order of resort.
    pub steps: Vec<Row>,
    /// By locality level, 0 the nearest.
    pub levels: Vec<Row>,
    /// Why requests are refused.
    pub refusals: Vec<Unrouted>,
    /// By rule, requests that it cannot be replayed for: it reads what was redacted. In no other figure.
    pub not_replayable: Vec<Row>,
}

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was counted.
    pub name: String,
    /// How often.
    pub requests: u64,
    /// Its part, from 0 to 1.
    pub share: f64,
}

/// Requests refused for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unrouted {
    /// The status that the client gets.
    pub status: u16,
    /// The word for why.
    pub detail: &'static str,
    /// The service whose file refused it; `None`: no file claims it.
    pub service: Option<String>,
    /// How many.
    pub requests: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

impl Counts<'_> {
    /// The report. `labels`: by which labels of the instances to count.
    #[must_use]
    pub fn report(self, requests: u64, skipped: Skipped, labels: &[String]) -> Report {
        let table = self.scene.table;
        let files = || table.router.files.iter().enumerate();
        let mut rules = Vec::new();
        let mut pools: BTreeMap<String, u64> = BTreeMap::new();
        let mut instances: BTreeMap<String, u64> = BTreeMap::new();
        let mut by_label: BTreeMap<String, BTreeMap<Text, u64>> = BTreeMap::new();
        for (at, file) in files() {
            let named = |name: &str| format!("{}/{name}", file.service);
            let none: Text = "(no rule)".into();
            let names = file.rules.iter().map(|rule| &rule.name).chain([&none]);
            let listed = names.zip(&self.rules[at]).filter(|(name, count)| **count > 0 || !Text::ptr_eq(name, &none));
            rules.extend(listed.map(|(name, count)| (named(name), *count)));
            for (pool, count) in
                file.pools.iter().zip(&self.pools[at]).filter(|(pool, n)| **n > 0 || pool.spec.is_some())
            {
                *pools.entry(named(&pool.name)).or_default() += count;
            }
            for (endpoint, count) in table.files[at].endpoints().iter().zip(&self.endpoints[at]) {
                *instances.entry(named(&endpoint.instance.id)).or_default() += count;
                for label in labels {
                    let value = endpoint.instance.labels.value(label).unwrap_or("(none)");
                    *by_label.entry(label.clone()).or_default().entry(value.into()).or_default() += count;
                }
            }
        }
        let refusals: Vec<Unrouted> = self
            .refusals
            .into_iter()
            .map(|((status, detail, file), (requests, examples))| Unrouted {
                status,
                detail,
                service: file.map(|file| table.router.files[file as usize].service.to_string()),
                requests,
                examples,
            })
            .collect();
        let unreplayed: u64 = self.not_replayable.values().sum();
        let (all, routed) = (requests - unreplayed, instances.values().sum());
        let not_replayable = self.not_replayable.into_iter().map(|((file, rule), count)| {
            let file = &table.router.files[file as usize];
            (format!("{}/{}", file.service, file.rules[rule as usize].name), count)
        });
        Report {
            requests,
            skipped,
            routed,
            answered: self.answered,
            unrouted: refusals.iter().map(|refusal| refusal.requests).sum(),
            rerouted: self.rerouted,
            rules: rows(rules, all),
            pools: rows(pools, routed),
            labels: by_label
                .into_iter()
                .map(|(label, values)| {
                    (label, rows(values.into_iter().map(|(value, n)| (value.to_string(), n)), routed))
                })
                .collect(),
            instances: rows(instances, routed),
            steps: rows(self.steps.into_iter().map(|(step, count)| (step_word(step).to_owned(), count)), routed),
            levels: rows(self.levels.into_iter().map(|(level, count)| (level.to_string(), count)), routed),
            refusals,
            not_replayable: rows(not_replayable, requests),
        }
    }
}

fn rows(counts: impl IntoIterator<Item = (String, u64)>, all: u64) -> Vec<Row> {
    let share = |count: u64| if all == 0 { 0.0 } else { count as f64 / all as f64 };
    counts.into_iter().map(|(name, requests)| Row { name, requests, share: share(requests) }).collect()
}

fn step_word(step: Step) -> &'static str {
    match step {
        Step::Preferred => "preferred",
        Step::AtLeastOne => "below min",
        Step::Panic => "panic",
        Step::RuleElse => "else of the rule",
        Step::FileElse => "else of the file",
    }
}

impl Report {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{}: {} routed", counted(self.requests, "request"), thousands(self.routed));
        for (count, word) in [(self.answered, "answered by rules"), (self.unrouted, "unrouted")] {
            if count > 0 || word == "unrouted" {
                let _ = write!(out, ", {} {word}", thousands(count));
            }
        }
        out.push('\n');
        for (title, rows) in [("rule", &self.rules), ("pool", &self.pools)] {
            table(&mut out, title, rows);
        }
        for (label, rows) in &self.labels {
            table(&mut out, label, rows);
        }
        table(&mut out, "instance", &self.instances);
        if self.levels.len() > 1 {
            table(&mut out, "level (0 is nearest)", &self.levels);
        }
        if self.steps.iter().any(|row| row.name != "preferred") {
            table(&mut out, "step of the order of resort", &self.steps);
        }
        if self.rerouted > 0 {
            let _ = writeln!(
                out,
                "\n{} took another arm: their own had nobody routable",
                counted(self.rerouted, "request")
            );
        }
        self.trouble(&mut out);
        out
    }

    fn trouble(&self, out: &mut String) {
        for refusal in &self.refusals {
            let of = refusal.service.as_ref().map_or(String::new(), |service| format!(" by {service}"));
            let _ = writeln!(
                out,
                "\nunrouted: {} with {} {}{of}",
                thousands(refusal.requests),
                refusal.status,
                refusal.detail
            );
            for example in &refusal.examples {
                let _ = writeln!(out, "  line {}: {}\n    {}", example.line, example.request, example.explain);
            }
        }
        if !self.not_replayable.is_empty() {
            table(out, "not replayable: reads what was redacted", &self.not_replayable);
        }
        skipped(out, &self.skipped);
    }
}

/// The lines that could not be read.
pub(in crate::dry_run) fn skipped(out: &mut String, skipped: &Skipped) {
    if skipped.count == 0 {
        return;
    }
    let _ = writeln!(out, "\n{} could not be read", counted(skipped.count, "line"));
    for (line, why) in &skipped.first {
        let _ = writeln!(out, "  line {line}: {why}");
    }
}

fn table(out: &mut String, title: &str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    out.push('\n');
    let mut lines = vec![[title.to_owned(), "requests".to_owned(), "share".to_owned()]];
    lines.extend(rows.iter().map(|row| [row.name.clone(), thousands(row.requests), percent(row.share)]));
    out.push_str(&columns(&lines));
}
