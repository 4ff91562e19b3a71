//! `pointsman test PATH… [--catalog FILE] [--fail-under N%]`.

use std::path::PathBuf;

use super::dry::{self, Told, Written};
use crate::dry_run::inputs::{self, Unusable};
use crate::dry_run::suite::{Report, run as judge, suites};

/// A case failed.
const FAILED: u8 = 1;
/// Every case passed, but they cover too little.
const UNCOVERED: u8 = 4;

/// Run the tests beside the rules, and say what they cover
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rule files, folders of them, files of tests; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The instances; without them every pool counts as having one that is routable
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
    /// Exit with 4 when less than this part of the rules, conditions, arms and fallbacks is covered
    #[arg(long, value_name = "N%", value_parser = dry::percent)]
    pub fail_under: Option<f64>,
    /// Where the proxy stands, and how the report is written
    #[command(flatten)]
    pub told: Told,
}

/// Runs the tests and prints the report. Gives the exit status.
#[must_use]
pub fn run(args: &Args) -> u8 {
    dry::tell(report(args).map(|report| {
        let status = status(&report, args.fail_under);
        let mut text = match args.told.format {
            Written::Text => report.text(),
            Written::Json => format!("{:#}\n", report.json()),
        };
        if let (UNCOVERED, Written::Text, Some(limit)) = (status, args.told.format, args.fail_under) {
            text.push_str(&format!("coverage is under {}%\n", limit * 100.0));
        }
        (text, status)
    }))
}

fn report(args: &Args) -> Result<Report, Unusable> {
    let catalog = args.catalog.as_deref().map(|path| Ok((inputs::catalog(path)?, path))).transpose();
    let (suites, catalog) = inputs::both(suites(&args.paths), catalog)?;
    let catalog = catalog.as_ref().map(|(file, path)| (file, *path));
    judge(&suites, catalog, &args.told.place(), &args.told.flags())
}

fn status(report: &Report, fail_under: Option<f64>) -> u8 {
    match fail_under {
        _ if !report.failed.is_empty() => FAILED,
        Some(limit) if report.coverage.overall() < limit => UNCOVERED,
        _ => 0,
    }
}
