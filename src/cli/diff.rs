//! `pointsman diff --rules OLD --with NEW --catalog FILE --traffic FILE`.

use std::path::PathBuf;
use std::sync::Arc;

use super::dry::{self, Told, Traffic, Written};
use crate::dry_run::command::Explain;
use crate::dry_run::diff::{Moves, Report, Scene};
use crate::dry_run::inputs::{self, Rules, Unusable};
use crate::dry_run::replay::{Luck, Redactions};
use crate::dry_run::what_if::WhatIf;
use crate::engine::format::catalog_file::CatalogFile;
use crate::engine::table::Table;

/// A limit is exceeded.
const EXCEEDED: u8 = 1;

/// Run captured requests through two rule sets, or two catalogs, and say what moves
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rule files and folders of them: those in force
    #[arg(long, required = true, value_name = "OLD")]
    pub rules: Vec<PathBuf>,
    /// Rule files and folders of them: those that shall be; without them the same
    #[arg(long, value_name = "NEW")]
    pub with: Vec<PathBuf>,
    /// The instances
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
    /// The instances that shall be; without it the same
    #[arg(long, value_name = "FILE")]
    pub with_catalog: Option<PathBuf>,
    /// The captured requests
    #[command(flatten)]
    pub traffic: Traffic,
    /// Exit with 1 when more than this part of the requests moves
    #[arg(long, value_name = "N%", value_parser = dry::percent)]
    pub max_moved: Option<f64>,
    /// Exit with 1 when more requests than this are unrouted that were not before
    #[arg(long, value_name = "N")]
    pub max_unrouted: Option<u64>,
    /// Where the proxy stands, and how the report is written
    #[command(flatten)]
    pub told: Told,
}

/// Compares and prints the report. Gives the exit status.
#[must_use]
pub fn run(args: &Args) -> u8 {
    dry::tell(report(args).and_then(|report| {
        let exceeded = report.exceeded(args.max_moved, args.max_unrouted);
        let status = if exceeded.is_empty() { 0 } else { EXCEEDED };
        let text = match args.told.format {
            Written::Text => {
                let limits: String = exceeded.iter().map(|limit| format!("limit exceeded: {limit}\n")).collect();
                report.text() + if limits.is_empty() { "" } else { "\n" } + &limits
            }
            Written::Json => dry::object(&WithLimits { report: &report, exceeded })?,
        };
        Ok((text, status))
    }))
}

/// The report for programs, with the limits that it exceeds.
#[derive(serde::Serialize)]
struct WithLimits<'r> {
    #[serde(flatten)]
    report: &'r Report,
    exceeded: Vec<String>,
}

fn report(args: &Args) -> Result<Report, Unusable> {
    if args.with.is_empty() && args.with_catalog.is_none() {
        return Err(Unusable::because("nothing to compare with: --with NEW or --with-catalog FILE is missing"));
    }
    let with = if args.with.is_empty() { &args.rules } else { &args.with };
    let old_catalog = args.catalog.as_deref();
    let new_catalog = args.with_catalog.as_deref().or(old_catalog);
    let rules = inputs::both(inputs::rules(&args.rules), inputs::rules(with));
    let catalogs =
        inputs::both(dry::catalog(old_catalog), args.with_catalog.as_deref().map(inputs::catalog).transpose());
    let ((old, new), ((catalog, _), other)) = inputs::both(rules, catalogs)?;
    let before = table(&old, &catalog, args)?;
    let after = table(&new, other.as_ref().unwrap_or(&catalog), args)?;
    let flags = args.told.flags();
    let scene = Scene {
        old: &before,
        new: &after,
        luck: Luck::default(),
        redactions: [Redactions::of(&old.router), Redactions::of(&new.router)],
        explain: [Explain::new(&args.rules, old_catalog, &flags), Explain::new(with, new_catalog, &flags)],
    };
    let counted = args.traffic.count(None, || Moves::new(&scene))?;
    Ok(counted.tally.report(counted.skipped))
}

fn table(rules: &Rules, catalog: &CatalogFile, args: &Args) -> Result<Table, Unusable> {
    inputs::table(Arc::clone(&rules.router), catalog, &WhatIf::default(), args.told.place())
}
