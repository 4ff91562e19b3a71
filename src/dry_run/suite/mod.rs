//! `test`: the cases beside the rules and in files of their own, judged by the proxy's own decision. Shares are computed
//! from cumulative weights and from who is routable, never sampled.

mod coverage;
mod judge;
mod report;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::Explain;
use super::inputs::{self, Rules, Unusable};
use super::load;
use super::what_if::WhatIf;
use crate::engine::diagnostic::{Diagnostics, Source};
use crate::engine::format::catalog_file::CatalogFile;
use crate::engine::label::Text;
use crate::engine::locality::Place;
use crate::engine::route::{FileIdx, Router};
use crate::engine::rules::{TestCase, TestFile};
pub use coverage::{Coverage, Item, Kind};
pub use judge::{Failure, Verdict};
pub use report::Report;
pub use world::World;

/// Rules and the cases for them.
#[derive(Debug)]
pub struct Suite {
    /// The rules that are in force for these cases.
    pub rules: Rules,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it is written.
    pub source: Arc<Source>,
    /// What it says.
    pub test: TestCase,
    /// The rule file that it stands in; `None`: in a file of tests.
    pub beside: Option<FileIdx>,
}

/// The suites at some paths: the rule files there together with their cases, and each file of tests with the rules that
/// it names. Blocking.
///
/// # Errors
/// Everything that cannot be used, of all of them.
pub fn suites(paths: &[PathBuf]) -> Result<Vec<Suite>, Unusable> {
    let (sources, unreadable) = load::sources(paths);
    let (mut rule_files, mut test_files) = (Vec::new(), Vec::new());
    for source in sources {
        match TestFile::of(&source) {
            Some(file) => test_files.push(file),
            None => rule_files.push(source),
        }
    }
    let (mut found, mut unusable) = (Vec::new(), Unusable::default());
    if !rule_files.is_empty() || !unreadable.is_empty() || test_files.is_empty() {
        let named: Vec<PathBuf> = rule_files.iter().map(|source| PathBuf::from(&source.name)).collect();
        let named = if named.is_empty() { paths.to_vec() } else { named };
        match inputs::compile(load::parse(rule_files, unreadable), &named) {
            Ok(rules) => found.push(beside(rules)),
            Err(reasons) => unusable.merge(reasons),
        }
    }
    for file in test_files {
        match apart(&file) {
            Ok(suite) => found.push(suite),
            Err(reasons) => unusable.merge(reasons),
        }
    }
    if unusable.is_empty() { Ok(found) } else { Err(unusable) }
}

/// The rules without a catalog: it is taken to have the services that the cases' hosts name to a file for every service.
fn assumed(suite: &Suite) -> Result<Arc<Router>, Unusable> {
    let router = &suite.rules.router;
    let services: BTreeSet<Text> =
        suite.cases.iter().filter_map(|case| router.service_of_host(&judge::host(case, &suite.rules))).collect();
    let expanded = router.expanded(services.iter()).map_err(|out| Unusable::of(out, Vec::new()))?;
    Ok(expanded.map_or_else(|| Arc::clone(router), Arc::new))
}

fn beside(rules: Rules) -> Suite {
    let files = rules.set.files.iter().enumerate();
    let cases = files.flat_map(|(at, file)| {
        let case = move |test: &TestCase| Case {
            source: Arc::clone(&file.source),
            test: test.clone(),
            beside: Some(at as FileIdx),
        };
        file.tests.iter().map(case)
    });
    let cases = cases.collect();
    Suite { rules, cases }
}

fn apart(file: &TestFile) -> Result<Suite, Unusable> {
    let from = Path::new(&file.source.name).parent().unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = file.rules.iter().map(|path| from.join(&*path.value)).collect();
    let rules = inputs::rules(&paths)?;
    let mut out = Diagnostics::default();
    let tests = file.cases(&rules.set, &mut out);
    let unusable = Unusable::of(out, Vec::new());
    if !unusable.is_empty() {
        return Err(unusable);
    }
    let case = |test| Case { source: Arc::clone(&file.source), test, beside: None };
    Ok(Suite { rules, cases: tests.into_iter().map(case).collect() })
}

/// Runs suites. Without a catalog every pool has one routable instance.
///
/// # Errors
/// The rules cannot be resolved with this catalog.
pub fn run(
    suites: &[Suite],
    catalog: Option<(&CatalogFile, &Path)>,
    place: &Place,
    flags: &[(&str, Option<&str>)],
) -> Result<Report, Unusable> {
    let mut report = Report { assumed: catalog.is_none(), ..Report::default() };
    let mut seen: BTreeSet<(String, usize)> = BTreeSet::new();
    for suite in suites {
        let world = match catalog {
            None => World::Assumed(assumed(suite)?),
            Some((catalog, _)) => {
                let router = Arc::clone(&suite.rules.router);
                World::Table(Box::new(inputs::table(router, catalog, &WhatIf::default(), place.clone())?))
            }
        };
        report.coverage.know(&suite.rules.router);
        let explain =
            Explain::new(&suite.rules.paths, Some(catalog.map_or(Path::new("CATALOG.yaml"), |(_, path)| path)), flags);
        for case in &suite.cases {
            // The same file may be named twice.
            if seen.insert((case.source.name.clone(), case.test.span.start)) {
                let verdict = judge::judge(&world, &suite.rules, case, &explain, &mut report.coverage);
                report.add(verdict);
            }
        }
    }
    Ok(report)
}
