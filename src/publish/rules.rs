//! Rule files in force: loaded, followed, and replaced as a whole or not at all.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};

use super::publisher::Command;
use crate::dry_run::load;
use crate::engine::diagnostic::{Diagnostics, Severity, Source};
use crate::engine::route::Router;
use crate::engine::rules;
use crate::files::FileWatch;
use crate::observe::events::{Events, Kind, Report};
use crate::observe::metrics::Metrics;
use crate::observe::names;

/// Rule files, read and compiled.
#[derive(Debug)]
pub struct Loaded {
    /// As used.
    pub router: Arc<Router>,
    /// The files, sorted by name.
    pub sources: Vec<Arc<Source>>,
    /// What `check` would warn of.
    pub warnings: Diagnostics,
}

/// Why rule files are not used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file cannot be read.
    #[error(transparent)]
    Load(#[from] load::LoadError),
    /// Something in them is wrong; all of it is here.
    #[error("{} in the rule files: {}", count(.0), .0.0.iter().filter(|d| d.severity == Severity::Error).map(|d| d.one_line()).collect::<Vec<_>>().join("; "))]
    Wrong(Diagnostics),
    /// They are right in themselves, but cannot be resolved over the instances.
    #[error("{0}")]
    Resolve(String),
}

fn count(diagnostics: &Diagnostics) -> String {
    match diagnostics.0.iter().filter(|d| d.severity == Severity::Error).count() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}

/// Reads, parses and compiles the rule files under the given paths.
///
/// # Errors
/// Every problem of every file, or the first file that cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Loaded, RulesError> {
    let sources = load::sources(paths)?;
    let (set, mut found) = rules::parse_files(&sources);
    if found.has_errors() {
        return Err(RulesError::Wrong(found));
    }
    match Router::compile(&set) {
        Ok(router) => Ok(Loaded { router: Arc::new(router), sources, warnings: found }),
        Err(more) => {
            found.0.extend(more.0);
            Err(RulesError::Wrong(found))
        }
    }
}

/// What `/v1/rules` says: the files in force, and how the last reload went.
#[derive(Clone, Debug, Serialize)]
pub struct RulesReport {
    /// The files in force.
    pub files: Vec<FileReport>,
    /// The table's generation that first had them.
    pub generation: u64,
    /// Reloads since the start: applied.
    pub applied: u64,
    /// Reloads since the start: refused.
    pub refused: u64,
    /// Why the newest files are not in force; absent when they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// One file in force.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Its path.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why newer files were not taken.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// One line.
    pub reason: String,
    /// Every problem, drawn.
    pub diagnostics: Vec<String>,
}

/// The rules' loader, and its report.
pub struct RuleFiles {
    paths: Vec<PathBuf>,
    report: Arc<Mutex<RulesReport>>,
    /// The texts that were read last, in force or not: the same ones again are no news.
    last: Vec<Arc<Source>>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

/// Reads the report at any time.
#[derive(Clone, Debug)]
pub struct RulesView(Arc<Mutex<RulesReport>>);

impl RulesView {
    /// A copy of the report.
    #[must_use]
    pub fn report(&self) -> RulesReport {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl RuleFiles {
    /// Starts from rules that are in force.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, loaded: &Loaded, events: Arc<Events>, metrics: Arc<Metrics>) -> (Self, RulesView) {
        let report = RulesReport {
            files: files(&loaded.sources),
            generation: 0,
            applied: 0,
            refused: 0,
            refusal: None,
        };
        let report = Arc::new(Mutex::new(report));
        let view = RulesView(Arc::clone(&report));
        (Self { paths, report, last: loaded.sources.clone(), events, metrics }, view)
    }

    /// Follows the files for as long as the publisher lives; `reload` forces a look (SIGHUP). Calls `wanted` with the
    /// services that the rules name whenever new ones are in force.
    pub async fn follow(
        mut self,
        commands: mpsc::Sender<Command>,
        reload: Arc<Notify>,
        wanted: impl Fn(&Router) + Send,
    ) {
        let mut watch = FileWatch::new(self.paths.clone());
        loop {
            let forced = tokio::select! {
                () = watch.changed() => false,
                () = reload.notified() => true,
                () = commands.closed() => return,
            };
            self.reload(&commands, forced, &wanted).await;
        }
    }

    async fn reload(&mut self, commands: &mpsc::Sender<Command>, forced: bool, wanted: &(impl Fn(&Router) + Send)) {
        let paths = self.paths.clone();
        let read = match tokio::task::spawn_blocking(move || (load::sources(&paths), read(&paths))).await {
            Ok((sources, read)) => {
                let sources = sources.unwrap_or_default();
                if !forced && sources == self.last {
                    return;
                }
                self.last = sources;
                read
            }
            Err(error) => Err(RulesError::Resolve(format!("reading the rule files failed: {error}"))),
        };
        let applied = match read {
            Ok(loaded) => apply(commands, &loaded).await.map(|generation| (loaded, generation)),
            Err(error) => Err(error),
        };
        match applied {
            Ok((loaded, generation)) => {
                wanted(&loaded.router);
                self.applied(&loaded, generation);
            }
            Err(error) => self.refused(&error),
        }
    }

    fn applied(&self, loaded: &Loaded, generation: u64) {
        self.metrics.count(&names::RELOADS, &["rules", "applied"], 1);
        let reason = format!("{} rule files in force", loaded.sources.len());
        self.events.record(Report::new(Kind::Reloaded, reason).generation(generation));
        let mut report = self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.files = files(&loaded.sources);
        report.generation = generation;
        report.applied += 1;
        report.refusal = None;
    }

    fn refused(&self, error: &RulesError) {
        self.metrics.count(&names::RELOADS, &["rules", "refused"], 1);
        self.events.record(Report::new(Kind::ReloadFailed, format!("the rules before stay: {error}")));
        let diagnostics = match error {
            RulesError::Wrong(found) => found.0.iter().map(crate::engine::diagnostic::Diagnostic::render).collect(),
            RulesError::Load(_) | RulesError::Resolve(_) => Vec::new(),
        };
        let mut report = self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.refused += 1;
        report.refusal = Some(Refusal { reason: error.to_string(), diagnostics });
    }
}

async fn apply(commands: &mpsc::Sender<Command>, loaded: &Loaded) -> Result<u64, RulesError> {
    let stopped = || RulesError::Resolve("the publisher has stopped".to_owned());
    let (done, answer) = oneshot::channel();
    let command = Command::Rules { router: Arc::clone(&loaded.router), done };
    commands.send(command).await.map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())?.map_err(|error| RulesError::Resolve(error.to_string()))
}

fn files(sources: &[Arc<Source>]) -> Vec<FileReport> {
    sources.iter().map(|source| FileReport { name: source.name.clone(), text: source.text.clone() }).collect()
}
