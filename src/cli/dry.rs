//! What the dry-run commands share: arguments, inputs, progress, output.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::dry_run::inputs::{self, Unusable};
use crate::dry_run::numbers::thousands;
use crate::dry_run::traffic::Format;
use crate::dry_run::traffic::stream::{Reading, Run, Tally, run};
use crate::engine::format::catalog_file::CatalogFile;
use crate::engine::locality::Place;

/// Usage, or an input that cannot be read or parsed.
pub(super) const UNUSABLE: u8 = 2;

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Written {
    /// For people.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Where the proxy stands, and how what is found is written.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Told {
    /// The proxy's region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// The proxy's zone
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Written,
}

/// The captured requests.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Traffic {
    /// Captured requests; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub traffic: PathBuf,
    /// What the traffic file was written by: traffic, combined, envoy or har; without it, its beginning says
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub input_format: Option<Format>,
    /// The host of lines that do not name one
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub host: String,
    /// End with the first line that cannot be read
    #[arg(long)]
    pub strict: bool,
    /// Threads that count; as many as the machine has cores, unless given
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl Told {
    pub(super) fn place(&self) -> Place {
        inputs::place(self.region.as_deref(), self.zone.as_deref())
    }

    pub(super) fn flags(&self) -> [(&str, Option<&str>); 2] {
        [("region", self.region.as_deref()), ("zone", self.zone.as_deref())]
    }
}

impl Traffic {
    /// Runs the file through tallies, with progress on a terminal. In strict mode a line that cannot be read is an error.
    pub(super) fn count<T: Tally>(
        &self,
        threads: Option<usize>,
        make: impl Fn() -> T + Sync,
    ) -> Result<Run<T>, Unusable> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reading = Reading {
            format: self.input_format,
            host: self.host.clone(),
            threads: threads.or(self.threads).unwrap_or(cores),
            strict: self.strict,
        };
        let unreadable =
            |error: io::Error| Unusable::because(format!("cannot read {}: {error}", self.traffic.display()));
        let input: Box<dyn Read> = match self.traffic.as_path() {
            path if path == Path::new("-") => Box::new(io::stdin().lock()),
            path => Box::new(File::open(path).map_err(unreadable)?),
        };
        let mut progress = Progress::new();
        let counted = run(input, &reading, make, &mut |lines| progress.tell(lines));
        progress.clear();
        let counted = counted.map_err(unreadable)?;
        match counted.skipped.first.first().filter(|_| self.strict) {
            Some((line, why)) => Err(Unusable::because(format!("{}:{line}: {why}", self.traffic.display()))),
            None => Ok(counted),
        }
    }
}

fn format(text: &str) -> Result<Format, String> {
    let known = Format::ALL.iter().find(|(word, _)| *word == text).map(|(_, format)| *format);
    known.ok_or_else(|| format!("must be one of {}", Format::ALL.map(|(word, _)| word).join(", ")))
}

/// `30%` or `30`, as a part of one.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        _ => Err("must be a percentage from 0% to 100%".into()),
    }
}

/// A catalog that a command cannot do without.
pub(super) fn catalog(path: Option<&Path>) -> Result<(CatalogFile, &Path), Unusable> {
    let missing = "--catalog FILE is missing; `pointsman catalog > catalog.yaml` writes the live catalog";
    let path = path.ok_or_else(|| Unusable::because(missing))?;
    Ok((inputs::catalog(path)?, path))
}

/// Prints what was found, or why nothing can be found. Gives the exit status.
pub(super) fn tell(found: Result<(String, u8), Unusable>) -> u8 {
    match found {
        Ok((text, status)) => printed(&text, status),
        Err(why) => unusable(&why),
    }
}

/// One JSON object, laid out.
pub(super) fn object(value: &impl serde::Serialize) -> Result<String, Unusable> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Unusable::because(error.to_string()))?;
    Ok(text + "\n")
}

/// Says why there is no result.
fn unusable(unusable: &Unusable) -> u8 {
    eprint!("{}", unusable.render());
    UNUSABLE
}

/// Writes a report. A reader who has seen enough is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The exit status, when the report could be written.
fn printed(text: &str, status: u8) -> u8 {
    match print(text) {
        Ok(()) => status,
        Err(error) => {
            eprintln!("error: cannot write the report: {error}");
            UNUSABLE
        }
    }
}

/// A line on a terminal that says how far it is.
struct Progress {
    shown: bool,
    terminal: bool,
    last: Instant,
}

/// Time between two words of progress.
const EVERY: Duration = Duration::from_millis(200);

impl Progress {
    fn new() -> Self {
        Self { shown: false, terminal: io::stderr().is_terminal(), last: Instant::now() }
    }

    fn tell(&mut self, lines: u64) {
        if self.terminal && self.last.elapsed() >= EVERY {
            (self.shown, self.last) = (true, Instant::now());
            eprint!("\r{} lines", thousands(lines));
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
