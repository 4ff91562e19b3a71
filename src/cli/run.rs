//! `pointsman run`: the proxy, until it is told to end.

use std::io::{self, Write};

use serde_json::json;

use crate::config::{self, Flags, LogFormat, Settings};
use crate::engine::diagnostic::Severity;
use crate::observe::log;
use crate::publish::rules::{self, Permits, RulesError};
use crate::serve::{RuleSource, Serving, Signal, Signals, pages};

/// Ended in order.
const STOPPED: u8 = 0;
/// The start was refused; every reason has been said.
const REFUSED: u8 = 1;
/// Threads of the control plane (catalog, rules, checks, admin); the data plane has its own.
const CONTROL_THREADS: usize = 2;

/// What `run` takes; without a flag it is the configuration file, the environment or the default that counts.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print every setting in force and where it came from, and end
    #[arg(long)]
    print_config: bool,
}

/// Runs to the end. The exit status: 0 after a graceful stop, 1 when the start was refused.
#[must_use]
pub fn run(args: &Args) -> u8 {
    pages::keep_small();
    let loaded = match config::load(&args.flags, environment()) {
        Ok(loaded) => loaded,
        Err(found) => {
            eprint!("{}", found.render());
            return REFUSED;
        }
    };
    if args.print_config {
        print!("{}", loaded.report.render());
        return STOPPED;
    }
    let Some(rules) = read_rules(&loaded.settings) else { return REFUSED };
    match on_control_plane(serve(loaded.settings, rules)) {
        Ok(status) => status,
        Err(error) => refused(&error),
    }
}

/// The environment, without what is not UTF-8: no setting can be in there.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// A runtime of the control plane's size.
///
/// # Errors
/// Threads cannot be had.
pub fn on_control_plane<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

fn read_rules(settings: &Settings) -> Option<RuleSource> {
    let Some(path) = &settings.rules else {
        eprintln!("no rule files: give --rules PATH, or `rules:` in the configuration file");
        return None;
    };
    let paths = vec![path.into()];
    let config::Checks { allow_commands } = settings.checks;
    match rules::read(&paths, Permits { commands: allow_commands }) {
        Ok(loaded) => Some(RuleSource { paths, loaded }),
        Err(RulesError::Wrong(found)) => {
            eprint!("{}", found.render());
            None
        }
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}

async fn serve(settings: Settings, rules: RuleSource) -> u8 {
    let format = match settings.log.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let mut log = match log::init(format, &settings.log.level) {
        Ok(log) => log,
        Err(error) => return refused(&error),
    };
    let status = logged(settings, rules).await;
    log.close();
    status
}

async fn logged(settings: Settings, rules: RuleSource) -> u8 {
    for warning in rules.loaded.warnings.0.iter().filter(|d| d.severity == Severity::Warning) {
        tracing::warn!("{}", warning.one_line());
    }
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return refused(&error),
    };
    let serving = match Serving::start(settings, rules).await {
        Ok(serving) => serving,
        Err(error) => return refused(&error),
    };
    let line = json!({"event": "listening", "listen": serving.listen, "admin": serving.admin});
    if let Err(error) = announce(&line) {
        tracing::warn!(%error, "standard output cannot be written to");
    }
    while signals.next().await == Signal::Reload {
        serving.reload();
    }
    match serving.stop(signals.stop()).await {
        0 => tracing::info!("stopped; every request was finished"),
        cut => tracing::warn!(cut, "stopped; connections that were still busy at the end of drain.timeout were cut"),
    }
    STOPPED
}

fn announce(line: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn refused(error: &dyn std::error::Error) -> u8 {
    eprintln!("pointsman does not start: {error}");
    REFUSED
}
