//! `check`: what is wrong, and what is odd, about rules. Requests that show a finding are explained by the very engine
//! that routes before they are shown.

use std::sync::Arc;

use crate::dry_run::command::quoted;
use crate::dry_run::explain::explain;
use crate::dry_run::inputs;
use crate::dry_run::what_if::WhatIf;
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Severity, Witness};
use crate::engine::format::catalog_file::CatalogFile;
use crate::engine::format::explanation::{Explanation, Kind};
use crate::engine::format::traffic::TrafficLine;
use crate::engine::locality::Place;
use crate::engine::route::Router;
use crate::engine::rules::lint::{ANY_NAME, Against, Ask, Catalog, Expect, Finding, lint_all};
use crate::engine::rules::{RuleFile, RuleSet};
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};

/// What `check` has to say.
#[derive(Debug)]
pub struct Verdict {
    /// Errors, warnings and notes.
    pub diagnostics: Diagnostics,
    /// How many are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many are notes.
    pub notes: usize,
}

/// How the files are called on a command line, for the commands that a finding offers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    /// The rules' paths as given. None: the files' own names.
    pub rules: &'a [String],
    /// The catalog file's path.
    pub catalog: Option<&'a str>,
}

/// Adds to what parsing found: what compiling the rules finds, where they parsed, and the lints of every sound file.
#[must_use]
pub fn check(rules: &RuleSet, parsed: Diagnostics, catalog: Option<&Catalog>) -> Verdict {
    check_against(rules, parsed, Against { catalog, previous: None }, Named::default())
}

/// As [`check`], against the rules before too.
#[must_use]
pub fn check_against(rules: &RuleSet, mut parsed: Diagnostics, against: Against<'_>, named: Named<'_>) -> Verdict {
    let mut table = None;
    if !parsed.has_errors() {
        match Router::compile(rules) {
            Ok(router) => table = assembled(router, against.catalog),
            Err(mut more) => parsed.0.append(&mut more.0),
        }
    }
    for found in linted(rules, against, table.as_ref(), named) {
        parsed.0.extend(found);
    }
    let [errors, warnings, notes] =
        [Severity::Error, Severity::Warning, Severity::Note].map(|severity| parsed.count(severity));
    Verdict { diagnostics: parsed, errors, warnings, notes }
}

/// The lints of every file, confirmed, in the files' order. A file's findings are its own, so the files are shared out
/// over the cores.
fn linted(rules: &RuleSet, against: Against<'_>, table: Option<&Table>, named: Named<'_>) -> Vec<Vec<Diagnostic>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = rules.files.chunks(rules.files.len().div_ceil(cores).max(FEW_FILES));
    let part = |files: &[Arc<RuleFile>]| {
        let found = lint_all(&RuleSet { files: files.to_vec() }, against);
        found.into_iter().filter_map(|finding| confirmed(finding, table, rules, named)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = parts.map(|files| scope.spawn(move || part(files))).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|found| found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Fewer are not worth a thread.
const FEW_FILES: usize = 16;

impl Verdict {
    /// Whether the rules may be used, with warnings counted as errors where they are denied.
    #[must_use]
    pub fn passes(&self, deny_warnings: bool) -> bool {
        self.errors == 0 && !(deny_warnings && self.warnings > 0)
    }
}

fn assembled(router: Router, catalog: Option<&Catalog>) -> Option<Table> {
    let services = catalog.into_iter().flatten().map(|(name, instances)| (Arc::clone(name), instances.clone()));
    let mut services: Vec<_> = services.collect();
    if router.has_stars() && !services.iter().any(|(name, _)| &**name == ANY_NAME) {
        services.push((ANY_NAME.into(), Vec::new()));
    }
    let catalog = CatalogFile { services };
    inputs::table(Arc::new(router), &catalog, &WhatIf::default(), Place::default()).ok()
}

/// The finding with its witness, if the engine confirms it. `None`: it was nothing without.
fn confirmed(finding: Finding, table: Option<&Table>, rules: &RuleSet, named: Named<'_>) -> Option<Diagnostic> {
    let Finding { mut diagnostic, ask } = finding;
    let Some(ask) = ask else { return Some(diagnostic) };
    let answer = table.and_then(|table| asked(table, &ask)).filter(|answer| meets(answer, &ask.expect));
    match answer {
        Some(answer) => {
            let command = command(&ask, &diagnostic, rules, named);
            let crate::engine::rules::lint::Request { method, url, headers, client } = ask.request;
            let outcome = outcome(&answer);
            diagnostic.witness = Some(Box::new(Witness { method, url, headers, client, outcome, command }));
            Some(diagnostic)
        }
        None if ask.needed => None,
        None => Some(diagnostic),
    }
}

fn asked(table: &Table, ask: &Ask) -> Option<Explanation> {
    let headers = ask.request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let line = TrafficLine::of_url(&ask.request.method, &ask.request.url).ok()?;
    let line = TrafficLine { headers, client: ask.request.client, ..line };
    let request = line.request().ok()?;
    let trusted = table.router.trusts(&request.host, &request.path, request.sender());
    Some(explain(table, &request.view(trusted), Draw(0).fork(0), Millis(0)))
}

fn meets(answer: &Explanation, expect: &Expect) -> bool {
    let (Some(file), rule) = (&answer.file, answer.result.rule.as_deref()) else { return false };
    match expect {
        Expect::Rule { file: name, rule: wanted } => file.name == *name && rule == Some(wanted),
        Expect::NotRule { file: name, rule: other } => file.name == *name && rule.is_some_and(|rule| rule != &**other),
        Expect::NoRule { file: name } => file.name == *name && rule.is_none(),
    }
}

fn outcome(answer: &Explanation) -> String {
    match &answer.result.rule {
        Some(rule) => format!("goes to `{rule}`"),
        None => match (answer.result.outcome, answer.result.status) {
            (Kind::Refused, Some(status)) => format!("gets {status}"),
            _ => "meets no rule".to_owned(),
        },
    }
}

/// The `explain` that shows it. Without a catalog there is nobody to route to, but the rule is the same.
fn command(ask: &Ask, finding: &Diagnostic, rules: &RuleSet, named: Named<'_>) -> String {
    let mut words = Vec::new();
    if named.catalog.is_none() {
        words.push("echo 'services: {}' |".to_owned());
    }
    words.push("pointsman explain".to_owned());
    let own = [finding.source.name.clone()];
    let paths = match named.rules {
        [] if rules.files.len() == 1 => &own[..],
        [] => &rules.files.iter().map(|file| file.source.name.clone()).collect::<Vec<_>>()[..],
        paths => paths,
    };
    words.extend(paths.iter().map(|path| format!("--rules {}", quoted(path))));
    words.push(format!("--catalog {}", quoted(named.catalog.unwrap_or("-"))));
    words.push(format!("{} {}", quoted(&ask.request.method), quoted(&ask.request.url)));
    words.extend(ask.request.headers.iter().map(|(name, value)| format!("-H {}", quoted(&format!("{name}: {value}")))));
    words.extend(ask.request.client.map(|client| format!("--client {client}")));
    words.join(" ")
}
