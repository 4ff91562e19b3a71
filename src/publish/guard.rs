//! The guard of rule changes: old rules against new ones over the requests that came last, before the new ones are in
//! force. What a turned knob of a split moves is what was asked for; only surprises count.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::dry_run::command::Explain;
use crate::dry_run::diff::{Moves, Report, Scene};
use crate::dry_run::numbers::{counted, percent, thousands};
use crate::dry_run::replay::{Luck, Redactions};
use crate::dry_run::traffic::Captured;
use crate::dry_run::traffic::stream::{Skipped, Tally};
use crate::engine::format::traffic::TrafficRequest;
use crate::engine::policy::WHOLE;
use crate::engine::table::Table;
use crate::engine::time::Millis;
use crate::observe::recent::Recent;

/// What a change may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Part of the requests that may go elsewhere by surprise, per million.
    pub max_moved: u32,
    /// Requests that may be unrouted after and were not before.
    pub max_unrouted: u64,
}

/// The guard. Without one, changes are applied unseen.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Refuses a change over a limit; otherwise it only says so.
    pub enforce: bool,
    /// The limits.
    pub limits: Limits,
    /// The requests.
    pub recent: Arc<Recent>,
}

/// What the guard found about a change.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which limits are exceeded; empty: none.
    pub exceeded: Vec<String>,
    /// The comparison, with classes and examples.
    pub report: Report,
}

/// How often the guard takes what workers offered.
const GATHER_EVERY: Duration = Duration::from_secs(1);

/// Keeps the rings filled, for as long as it is polled.
pub async fn gather(recent: Arc<Recent>) {
    let mut ticks = tokio::time::interval(GATHER_EVERY);
    loop {
        ticks.tick().await;
        recent.gather();
    }
}

impl Guard {
    /// Compares two tables over the requests that came last. `explain`: what stands before the request in the commands
    /// that explain an example, before and after. Takes as long as 1,024 requests a worker take to decide twice.
    #[must_use]
    pub fn judge(&self, old: &Table, new: &Table, explain: [Explain; 2]) -> Finding {
        judge(self.recent.requests(), self.limits, old, new, explain)
    }
}

fn judge(requests: Vec<TrafficRequest>, limits: Limits, old: &Table, new: &Table, explain: [Explain; 2]) -> Finding {
    let redactions = [Redactions::default(), Redactions::default()];
    let luck = Luck { seed: None, now: Millis(0) };
    let scene = Scene { old, new, luck, redactions, explain };
    let mut moves = Moves::new(&scene);
    for (at, request) in requests.into_iter().enumerate() {
        moves.request(at as u64 + 1, &Captured { request, redacted: Vec::new() });
    }
    let mut report = moves.report(Skipped::default());
    // Hundreds of instances a page say less than the classes.
    report.load.clear();
    Finding { exceeded: exceeded(&report, limits), report }
}

fn exceeded(report: &Report, limits: Limits) -> Vec<String> {
    let mut found = Vec::new();
    let limit = f64::from(limits.max_moved) / f64::from(WHOLE);
    if report.surprising > limit + 1e-12 {
        let (moved, limit) = (percent(report.surprising), percent(limit));
        found.push(format!("{moved} of the recent requests would go elsewhere by surprise, more than {limit}"));
    }
    if report.newly_unrouted > limits.max_unrouted {
        let (newly, limit) = (thousands(report.newly_unrouted), thousands(limits.max_unrouted));
        found.push(format!("{newly} recent requests would be unrouted that were not before, more than {limit}"));
    }
    found
}

impl Finding {
    /// In one line: what was exceeded, or what moved.
    #[must_use]
    pub fn words(&self) -> String {
        let seen = counted(self.report.requests, "recent request");
        match (self.report.requests, self.exceeded.is_empty()) {
            (0, _) => "no request came yet, so the guard had nothing to compare".to_owned(),
            (_, true) => format!(
                "{seen} compared: {} would go elsewhere by surprise, {} as asked for",
                percent(self.report.surprising),
                percent(self.report.expected)
            ),
            (_, false) => {
                let worst = self.report.classes.iter().find(|class| !class.expected);
                let worst = worst.map(|class| {
                    let (from, to) = (class.from.words(), class.to.words());
                    format!("; most of them from {from} to {to}: {}", class.why.words())
                });
                format!("{seen} compared: {}{}", self.exceeded.join("; "), worst.unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests;
