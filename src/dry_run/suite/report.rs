//! What a test run says, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::coverage::{Coverage, Item, Kind};
use super::judge::Verdict;
use crate::dry_run::numbers::counted;

/// Everything that was run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// There was no catalog: every pool counted as having one routable instance.
    pub assumed: bool,
    /// How many cases passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: Vec<Verdict>,
    /// What they reached.
    pub coverage: Coverage,
}

impl Report {
    pub(super) fn add(&mut self, verdict: Verdict) {
        if verdict.failures.is_empty() {
            self.passed += 1;
        } else {
            self.failed.push(verdict);
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.assumed {
            out.push_str("no catalog: every pool counts as having one routable instance\n");
        }
        for (at, verdict) in self.failed.iter().enumerate() {
            out.push_str(if at == 0 && !self.assumed { "" } else { "\n" });
            let _ = writeln!(out, "FAILED {}:{}: {}", verdict.file, verdict.line, verdict.request);
            for failure in &verdict.failures {
                let place = format!("{}:{}", verdict.file, failure.line);
                let _ =
                    writeln!(out, "  {place}: {}: expected {}, got {}", failure.what, failure.expected, failure.actual);
            }
            if !verdict.explain.is_empty() {
                let _ = writeln!(out, "  {}", verdict.explain);
            }
        }
        if !self.failed.is_empty() {
            out.push('\n');
        }
        let all = self.passed + self.failed.len();
        let _ = writeln!(out, "{}: {} passed, {} failed", counted(all as u64, "test"), self.passed, self.failed.len());
        self.covered(&mut out);
        out
    }

    fn covered(&self, out: &mut String) {
        let kinds = Kind::ALL.iter().map(|kind| (kind.word(), self.coverage.count(Some(*kind))));
        let shown = |(word, (covered, all)): (&str, (usize, usize))| match all {
            0 => format!("{word} none"),
            _ => format!("{word} {covered}/{all} ({})", whole_percent(covered, all)),
        };
        let kinds: Vec<String> = kinds.map(shown).collect();
        let (covered, all) = self.coverage.count(None);
        let _ = writeln!(out, "coverage: {}; overall {}", kinds.join(", "), whole_percent(covered, all));
        let mut missing = self.coverage.missing().peekable();
        if missing.peek().is_some() {
            out.push_str("not covered:\n");
        }
        for item in missing {
            let _ = writeln!(out, "  {}", item.words());
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let kind = |kind: &Kind| {
            let (covered, all) = self.coverage.count(Some(*kind));
            (kind.word().to_owned(), json!({"covered": covered, "all": all}))
        };
        let mut coverage: serde_json::Map<String, Value> = Kind::ALL.iter().map(kind).collect();
        coverage.insert("overall".into(), json!(self.coverage.overall()));
        coverage.insert("missing".into(), json!(self.coverage.missing().collect::<Vec<_>>()));
        json!({
            "catalog": !self.assumed,
            "tests": self.passed + self.failed.len(),
            "passed": self.passed,
            "failed": self.failed,
            "coverage": coverage,
        })
    }
}

/// Rounded down, so that 100 % means all.
fn whole_percent(covered: usize, all: usize) -> String {
    format!("{}%", (covered * 100).checked_div(all).unwrap_or(100))
}

impl Item {
    fn words(&self) -> String {
        let of = self.rule.as_ref().map_or_else(|| "the file".to_owned(), |rule| format!("rule {rule}"));
        let what = match self.kind {
            Kind::Rule => return format!("{}: {of} never decides", self.file),
            Kind::Condition => format!("its condition is never {}", self.which),
            Kind::Arm => format!("nobody looks at arm {}", self.which),
            Kind::Fallback => format!("nothing falls back to {}", self.which),
        };
        format!("{}: {of}: {what}", self.file)
    }
}
