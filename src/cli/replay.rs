//! `pointsman replay --rules PATH --catalog FILE --traffic FILE`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::dry::{self, Standing, Traffic, Written};
use crate::dry_run::command::Explain;
use crate::dry_run::inputs::{self, Unusable};
use crate::dry_run::replay::{Counts, Each, Luck, Redactions, Report, Scene};
use crate::dry_run::what_if::WhatIf;
use crate::engine::time::Millis;

/// Some requests are refused.
const UNROUTED: u8 = 3;

/// Decide captured requests again, and say where they go
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rule files and folders of them
    #[arg(long, required = true, value_name = "PATH")]
    pub rules: Vec<PathBuf>,
    /// The instances
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
    /// The captured requests
    #[command(flatten)]
    pub traffic: Traffic,
    /// Instances that are down, such as `version == 1.3`; repeatable
    #[arg(long, value_name = "EXPR")]
    pub down: Vec<String>,
    /// How many of each instance there are, such as `version == 1.3: 2`; repeatable
    #[arg(long, value_name = "EXPR: N")]
    pub scale: Vec<String>,
    /// The moment of the simulation, in milliseconds since the table was made
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub now: u64,
    /// Where luck comes from: with it every draw, without it only those that the lines do not name
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Labels of the instances to count by
    #[arg(long, value_name = "LABEL", default_values_t = ["version".to_owned(), "region".to_owned()])]
    pub by: Vec<String>,
    /// Write where each request goes, one JSON line a request, in place of the report; uses one core
    #[arg(long)]
    pub each: bool,
    /// How the report is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Written,
    /// Where the proxy stands
    #[command(flatten)]
    pub standing: Standing,
}

/// Replays and prints the report. Gives the exit status.
#[must_use]
pub fn run(args: &Args) -> u8 {
    let report = match report(args) {
        Ok(report) => report,
        Err(unusable) => return dry::unusable(&unusable),
    };
    let status = if report.unrouted > 0 { UNROUTED } else { 0 };
    match args.format {
        _ if args.each => status,
        Written::Text => dry::printed(&report.text(), status),
        Written::Json => match serde_json::to_string_pretty(&report) {
            Ok(text) => dry::printed(&(text + "\n"), status),
            Err(error) => dry::unusable(&Unusable::because(error.to_string())),
        },
    }
}

fn report(args: &Args) -> Result<Report, Unusable> {
    let what_if = WhatIf::parse(&args.down, &args.scale).map_err(|out| Unusable::of(out, Vec::new()));
    let (rules, catalog, what_if) = match (inputs::rules(&args.rules), dry::catalog(args.catalog.as_deref()), what_if) {
        (Ok(rules), Ok(catalog), Ok(what_if)) => (rules, catalog, what_if),
        (rules, catalog, what_if) => {
            let mut all = rules.err().unwrap_or_default();
            all.merge(catalog.err().unwrap_or_default());
            all.merge(what_if.err().unwrap_or_default());
            return Err(all);
        }
    };
    let table = inputs::table(&rules, &catalog.0, &what_if, args.standing.place())
        .map_err(|error| Unusable::because(error.to_string()))?;
    let scene = Scene {
        table: &table,
        luck: Luck { seed: args.seed, now: Millis(args.now) },
        redactions: Redactions::of(&rules.router),
        explain: Explain::new(&args.rules, Some(catalog.1), &args.standing.flags()),
    };
    let out: Mutex<Box<dyn Write + Send>> = Mutex::new(Box::new(BufWriter::new(io::stdout())));
    let each: Option<Each<'_>> = args.each.then_some(&out);
    let counted = args.traffic.count(args.each.then_some(1), || Counts::new(&scene, each))?;
    let flushed = out.lock().unwrap_or_else(PoisonError::into_inner).flush();
    let failed = counted.tally.failed.as_ref().or(flushed.as_ref().err());
    if let Some(error) = failed.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        return Err(Unusable::because(format!("cannot write where requests go: {error}")));
    }
    Ok(counted.tally.report(counted.requests, counted.skipped, &args.by))
}
