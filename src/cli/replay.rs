//! `pointsman replay --rules PATH --catalog FILE --traffic FILE`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::dry::{self, Told, Traffic, Written};
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
    /// Where the proxy stands, and how the report is written
    #[command(flatten)]
    pub told: Told,
}

/// Replays and prints the report. Gives the exit status.
#[must_use]
pub fn run(args: &Args) -> u8 {
    dry::tell(report(args).and_then(|report| {
        let text = match args.told.format {
            _ if args.each => String::new(),
            Written::Text => report.text(),
            Written::Json => dry::object(&report)?,
        };
        Ok((text, if report.unrouted > 0 { UNROUTED } else { 0 }))
    }))
}

fn report(args: &Args) -> Result<Report, Unusable> {
    let what_if = WhatIf::parse(&args.down, &args.scale).map_err(|out| Unusable::of(out, Vec::new()));
    let catalog = dry::catalog(args.catalog.as_deref());
    let ((rules, catalog), what_if) = inputs::both(inputs::both(inputs::rules(&args.rules), catalog), what_if)?;
    let table = inputs::table(Arc::clone(&rules.router), &catalog.0, &what_if, args.told.place())?;
    let scene = Scene {
        table: &table,
        luck: Luck { seed: args.seed, now: Millis(args.now) },
        redactions: Redactions::of(&rules.router),
        explain: Explain::new(&args.rules, Some(catalog.1), &args.told.flags()),
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
