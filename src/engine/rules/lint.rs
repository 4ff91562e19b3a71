//! Findings about rules that can be used but probably do not say what was meant.
//!
//! A lint is an entry of [`LINTS`]: a stable code, what it looks for, and a pure function over the rules as written
//! and, where there is one, the catalog.

mod catalog;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ruleset::{RuleFile, RuleSet};
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::yaml;

/// The instances of each service, for the lints that look at labels.
pub type Catalog = BTreeMap<Text, Vec<Arc<Instance>>>;

/// One lint.
#[derive(Debug)]
pub struct Lint {
    /// Stable code such as `W001`.
    pub code: &'static str,
    /// How bad a finding is.
    pub severity: Severity,
    /// What it looks for, in a few words.
    pub looks_for: &'static str,
    find: fn(&mut Findings<'_>),
}

/// All lints, by code.
pub const LINTS: &[Lint] = &[
    lint("W001", "request labels that anybody may send: `labels` or `propagate` without `trusted`", shape::untrusted),
    lint("W002", "a split without `key`: each request draws afresh", shape::keyless),
    lint("W003", "three or more arms as a map, whose order a formatter may change", shape::map_of_arms),
    lint("W004", "`!=` or `not` deciding on a label that some instances lack", catalog::negated_on_missing),
    lint("W005", "a pool that no rule uses", shape::unused_pool),
    lint("W006", "a finer label before a wider one in `locality.prefer`", shape::finer_first),
    lint("W007", "a pool's setting read as a label, because `select` is missing", shape::setting_as_label),
    lint("W008", "a literal that equals an instance's label as a version but not as text", catalog::version_as_text),
    lint("W009", "a rule behind one that takes every request", shape::unreachable),
    lint("W010", "a comparison that no request can meet", shape::never),
];

const fn lint(code: &'static str, looks_for: &'static str, find: fn(&mut Findings<'_>)) -> Lint {
    Lint { code, severity: Severity::Warning, looks_for, find }
}

/// Every lint over every file, by file and place.
#[must_use]
pub fn lint_rules(set: &RuleSet, catalog: Option<&Catalog>) -> Diagnostics {
    let mut out = Diagnostics::default();
    for file in &set.files {
        let mut own = Diagnostics::default();
        for lint in LINTS {
            (lint.find)(&mut Findings { file, catalog, lint, out: &mut own });
        }
        own.0.sort_by_key(|found| found.span.start);
        out.0.append(&mut own.0);
    }
    out
}

/// What a lint reads, and where it reports.
pub(super) struct Findings<'a> {
    file: &'a RuleFile,
    catalog: Option<&'a Catalog>,
    lint: &'static Lint,
    out: &'a mut Diagnostics,
}

impl<'a> Findings<'a> {
    fn report(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        let found = Diagnostic::error(self.lint.code, &self.file.source, span, message).label(label);
        self.out.push(Diagnostic { severity: self.lint.severity, ..found });
    }

    /// Where a key of the file's top stands.
    fn key(&self, name: &str) -> Span {
        let root = yaml::parse(&self.file.source, &mut Diagnostics::default());
        let pairs = root.as_ref().and_then(|root| root.map()).unwrap_or(&[]);
        let key = pairs.iter().find(|(key, _)| key.text() == Some(name));
        key.map_or(self.file.service.span, |(key, _)| key.span)
    }

    /// The service's instances; none when there is no catalog or the catalog lacks the service.
    fn instances(&self) -> &'a [Arc<Instance>] {
        self.catalog.and_then(|catalog| catalog.get(&self.file.service.value)).map_or(&[], Vec::as_slice)
    }
}
