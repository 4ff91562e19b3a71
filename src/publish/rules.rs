//! Rule files in force: loaded, followed, and replaced as a whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::publisher::NewRules;
use crate::dry_run::load;
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Severity, Source};
use crate::engine::policy::{Check, Probe};
use crate::engine::route::Router;
use crate::engine::rules::{RuleFile, RuleSet};
use crate::files::FileWatch;
use crate::observe::reloads::Reloads;

/// The word for rules among the things that are reloaded.
const WHAT: &str = "rules";

/// Rule files, read and compiled.
#[derive(Debug)]
pub struct Loaded {
    /// As used.
    pub router: Arc<Router>,
    /// As written.
    pub set: RuleSet,
    /// The files, sorted by name.
    pub sources: Vec<Arc<Source>>,
    /// The list files that they name.
    pub lists: Vec<PathBuf>,
    /// What `check` would warn of.
    pub warnings: Diagnostics,
}

/// What rule files may ask of the machine that they do not run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    /// Programs may be run as checks (`checks.allow_commands`).
    pub commands: bool,
}

/// Why rule files are not used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Files cannot be read; all of them are here.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unreadable(Vec<load::Unreadable>),
    /// Something in them is wrong; all of it is here.
    #[error("{}", count(.0))]
    Wrong(Diagnostics),
    /// They are right in themselves, but cannot be put in force.
    #[error("{0}")]
    Refused(String),
}

fn count(diagnostics: &Diagnostics) -> String {
    match diagnostics.0.iter().filter(|d| d.severity == Severity::Error).count() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}

/// Reads, parses and compiles the rule files under the given paths. Blocking.
///
/// # Errors
/// Every problem of every file.
pub fn read(paths: &[PathBuf], permits: Permits) -> Result<Loaded, RulesError> {
    compile(load::rules(paths), permits)
}

fn compile(read: load::Loaded, permits: Permits) -> Result<Loaded, RulesError> {
    let load::Loaded { sources, rules: set, diagnostics: mut found, unreadable, lists } = read;
    if !unreadable.is_empty() {
        return Err(RulesError::Unreadable(unreadable));
    }
    if !permits.commands {
        found.0.extend(set.files.iter().filter_map(forbidden));
    }
    if found.has_errors() {
        return Err(RulesError::Wrong(found));
    }
    match Router::compile(&set) {
        Ok(router) => Ok(Loaded { router: Arc::new(router), set, sources, lists, warnings: found }),
        Err(more) => {
            found.0.extend(more.0);
            Err(RulesError::Wrong(found))
        }
    }
}

/// Rule files may be written by others than those who run the proxy: only the configuration lets them run programs.
fn forbidden(file: &Arc<RuleFile>) -> Option<Diagnostic> {
    let Some(Check { probe: Probe::Command { .. }, .. }) = file.check else { return None };
    let message = "checks by `command` are not allowed here";
    let problem = Diagnostic::error("E904", &file.source, file.service.span, message);
    Some(problem.help("`checks: {allow_commands: true}` in the proxy's configuration allows them"))
}

/// What else follows the rules: who must know the services before they are routed to, and the rules after.
pub trait Followers: Send + 'static {
    /// These rules are about to be in force: subscribe to what they name, and wait (bounded) until it is known.
    fn prepare(&self, router: &Router) -> impl Future<Output = ()> + Send;

    /// These rules are in force.
    fn applied(&self, loaded: &Loaded);
}

/// The rules' loader.
pub struct RuleFiles<F> {
    paths: Vec<PathBuf>,
    permits: Permits,
    /// The texts that were read last, in force or not: the same ones again are no news.
    last: Vec<Arc<Source>>,
    /// The list files that the rules read last name.
    lists: Vec<PathBuf>,
    reloads: Arc<Reloads>,
    followers: F,
}

impl<F: Followers> RuleFiles<F> {
    /// Starts from rules that are in force.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, permits: Permits, loaded: &Loaded, reloads: Arc<Reloads>, followers: F) -> Self {
        Self { paths, permits, last: loaded.sources.clone(), lists: loaded.lists.clone(), reloads, followers }
    }

    /// Follows the files for as long as the publisher lives; `again` forces a look (SIGHUP).
    pub async fn follow(mut self, publisher: mpsc::Sender<NewRules>, again: Arc<Notify>) {
        let mut watch = self.watch();
        loop {
            let forced = tokio::select! {
                () = watch.changed() => false,
                () = again.notified() => true,
                () = publisher.closed() => return,
            };
            let followed = self.lists.clone();
            let reloaded = self.reload(&publisher, forced).await;
            if self.lists != followed {
                watch = self.watch();
            }
            match reloaded {
                Ok(None) => {}
                Ok(Some((files, warnings))) => {
                    self.reloads.accepted(WHAT, format!("{files} files in force"), warnings);
                }
                Err(RulesError::Wrong(found)) => {
                    self.reloads.refused(WHAT, format!("{}; the rules before stay", count(&found)), found);
                }
                Err(error) => {
                    self.reloads.refused(WHAT, format!("{error}; the rules before stay"), Diagnostics::default());
                }
            }
        }
    }

    fn watch(&self) -> FileWatch {
        FileWatch::new(self.paths.iter().chain(&self.lists).cloned().collect())
    }

    /// The number of files that are in force now, or `None` where nothing has changed.
    async fn reload(
        &mut self,
        publisher: &mpsc::Sender<NewRules>,
        forced: bool,
    ) -> Result<Option<(usize, Diagnostics)>, RulesError> {
        let paths = self.paths.clone();
        let read = blocking(move || load::rules(&paths)).await?;
        if !forced && read.sources == self.last && read.lists.is_empty() && read.unreadable.is_empty() {
            return Ok(None);
        }
        self.last.clone_from(&read.sources);
        self.lists.clone_from(&read.lists);
        let permits = self.permits;
        let loaded = blocking(move || compile(read, permits)).await??;
        self.followers.prepare(&loaded.router).await;
        apply(publisher, &loaded).await?;
        self.followers.applied(&loaded);
        Ok(Some((loaded.sources.len(), loaded.warnings)))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RulesError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| RulesError::Refused(format!("reading the rule files failed in itself: {error}")))
}

async fn apply(publisher: &mpsc::Sender<NewRules>, loaded: &Loaded) -> Result<u64, RulesError> {
    let stopped = || RulesError::Refused("the publisher has stopped".to_owned());
    let (done, answer) = oneshot::channel();
    let rules = NewRules { router: Arc::clone(&loaded.router), done };
    publisher.send(rules).await.map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())?.map_err(|error| RulesError::Refused(error.to_string()))
}
