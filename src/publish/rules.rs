//! Rule files in force: loaded, followed, and replaced as a whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::desk::{Applied, InForce, Order, Orders, PromoteLimits, Refused};
use super::guard::{Finding, Guard};
use super::publisher::{NewRules, Published};
use super::shadow::LastGood;
use crate::dry_run::command::Explain;
use crate::dry_run::load;
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Severity, Source};
use crate::engine::policy::{Check, Probe};
use crate::engine::route::Router;
use crate::engine::rules::{RuleFile, RuleSet};
use crate::files::FileWatch;
use crate::observe::clock::Clock;
use crate::observe::reloads::Reloads;
use crate::observe::shadow::Sums;

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
    /// They would move more than the guard allows.
    #[error("{}", .0.words())]
    Guarded(Arc<Finding>),
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
    ground: Ground<F>,
}

/// What the loader stands on.
pub struct Ground<F> {
    /// Where the table is read.
    pub published: Published,
    /// Where rules go.
    pub publisher: mpsc::Sender<NewRules>,
    /// The process's clock.
    pub clock: Clock,
    /// Who is told how it went.
    pub reloads: Arc<Reloads>,
    /// What else follows the rules.
    pub followers: F,
    /// Judges changes; `None`: off.
    pub guard: Option<Guard>,
    /// What operators order.
    pub orders: Orders,
    /// The shadow rules that may be promoted.
    pub shadow: LastGood,
    /// What stands before the request in the commands that explain an example, before and after a change.
    pub explain: Box<dyn Fn() -> [Explain; 2] + Send + Sync>,
}

/// How rules are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Something may have changed.
    Changed,
    /// They are to be applied again.
    Again,
    /// They are to be applied again, in place of promoted ones, too.
    Ordered,
    /// The same, whatever the guard finds.
    Forced,
}

/// Rules that came into force.
struct Taken {
    files: usize,
    warnings: Diagnostics,
    finding: Option<Arc<Finding>>,
}

impl<F: Followers> RuleFiles<F> {
    /// Starts from rules that are in force.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, permits: Permits, loaded: &Loaded, ground: Ground<F>) -> Self {
        Self { paths, permits, last: loaded.sources.clone(), lists: loaded.lists.clone(), ground }
    }

    /// Follows the files for as long as the publisher lives; `again` forces a look (SIGHUP).
    pub async fn follow(mut self, mut again: watch::Receiver<()>) {
        let mut watch = self.watch();
        let mut desk_open = true;
        // What changed between the last reading and the watch is seen by nobody else.
        let mut unseen = true;
        loop {
            let followed = self.lists.clone();
            tokio::select! {
                () = std::future::ready(()), if unseen => {
                    unseen = false;
                    drop(self.look(Look::Changed).await);
                }
                () = watch.changed() => drop(self.look(Look::Changed).await),
                Ok(()) = again.changed() => drop(self.look(Look::Again).await),
                order = self.ground.orders.orders.recv(), if desk_open => match order {
                    Some(order) => self.obey(order).await,
                    None => desk_open = false,
                },
                () = self.ground.publisher.closed() => return,
            }
            if self.lists != followed {
                watch = self.watch();
                unseen = true;
            }
        }
    }

    fn watch(&self) -> FileWatch {
        FileWatch::new(self.paths.iter().chain(&self.lists).cloned().collect())
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Apply { force, done } => {
                let outcome = self.look(if force { Look::Forced } else { Look::Ordered }).await;
                // A caller that went away will never read the answer.
                let _ = done.send(outcome);
            }
            Order::Promote { limits, done } => {
                let _ = done.send(self.promote(limits).await);
            }
        }
    }

    /// Puts the shadow rules in force, if what was measured of them is within the limits. The guard is not asked: the
    /// caller's own limits, over live requests, say more.
    async fn promote(&mut self, limits: PromoteLimits) -> Result<Sums, Refused> {
        let loaded = self.ground.shadow.loaded().ok_or(Refused::NoShadow)?;
        let candidate = self.ground.published.candidate.load_full().ok_or(Refused::NoShadow)?;
        // Newer shadow rules may be on their way; only those that were measured are promoted.
        if !Arc::ptr_eq(&candidate.rules, &loaded.router) {
            return Err(Refused::NoShadow);
        }
        let sums = candidate.figures.sums();
        let exceeded = limits.exceeded(&sums);
        if !exceeded.is_empty() {
            return Err(Refused::OverLimit(exceeded, Box::new(sums)));
        }
        self.apply(&loaded).await.map_err(|error| Refused::Unusable(error.to_string()))?;
        let Ground { reloads, orders, .. } = &self.ground;
        orders.tell(|told| (told.promoted, told.passed) = (true, None));
        let words = "the shadow rules were promoted; in force until the rule files change";
        reloads.accepted(WHAT, words, loaded.warnings.clone());
        Ok(sums)
    }

    /// Reads the files and applies them; how that went is told to everybody.
    async fn look(&mut self, look: Look) -> Result<Applied, Refused> {
        let outcome = self.reload(look).await;
        let Ground { reloads, orders, .. } = &self.ground;
        match outcome {
            Ok(None) => Ok(Applied { result: "nothing changed".to_owned(), guard: None }),
            Ok(Some(Taken { files, warnings, finding })) => {
                orders.tell(|told| *told = InForce { passed: finding.clone(), ..InForce::default() });
                let said = finding.as_ref().map(|finding| finding.words());
                if let Some(finding) = finding.iter().find(|finding| !finding.exceeded.is_empty()) {
                    tracing::warn!("rules: over the guard's limits, and applied all the same: {}", finding.words());
                }
                let result = format!("{files} files in force{}", said.map_or_else(String::new, |s| format!("; {s}")));
                reloads.accepted(WHAT, result.clone(), warnings);
                Ok(Applied { result, guard: finding })
            }
            Err(RulesError::Guarded(finding)) => {
                orders.tell(|told| (told.broken, told.refused) = (false, Some(Arc::clone(&finding))));
                let words = format!("refused by the guard: {}; the rules before stay", finding.words());
                reloads.guarded(WHAT, words);
                Err(Refused::Guarded(finding))
            }
            Err(error) => {
                orders.tell(|told| (told.broken, told.refused) = (true, None));
                let words = format!("{error}; the rules before stay");
                let found = if let RulesError::Wrong(found) = error { found } else { Diagnostics::default() };
                let rendered = found.render();
                reloads.refused(WHAT, words.clone(), found);
                Err(Refused::Unusable(format!("{words}\n{rendered}").trim_end().to_owned()))
            }
        }
    }

    /// What is in force now, or `None` where nothing has changed.
    async fn reload(&mut self, look: Look) -> Result<Option<Taken>, RulesError> {
        let paths = self.paths.clone();
        let read = blocking(move || load::rules(&paths)).await?;
        let same = read.sources == self.last && read.lists.is_empty() && read.unreadable.is_empty();
        let promoted = look == Look::Again && read.sources == self.last && self.ground.orders.told().promoted;
        if (look == Look::Changed && same) || promoted {
            return Ok(None);
        }
        self.last.clone_from(&read.sources);
        self.lists.clone_from(&read.lists);
        let permits = self.permits;
        let loaded = blocking(move || compile(read, permits)).await??;
        // The services that they name must be in the table before anything is said about them.
        self.ground.followers.prepare(&loaded.router).await;
        let finding = self.judged(&loaded.router, look).await?;
        self.apply(&loaded).await?;
        Ok(Some(Taken { files: loaded.sources.len(), warnings: loaded.warnings, finding }))
    }

    /// Puts rules in force.
    async fn apply(&self, loaded: &Loaded) -> Result<u64, RulesError> {
        let generation = apply(&self.ground.publisher, loaded).await?;
        self.ground.followers.applied(loaded);
        Ok(generation)
    }

    /// What the guard finds; `None`: nobody was asked.
    async fn judged(&self, router: &Arc<Router>, look: Look) -> Result<Option<Arc<Finding>>, RulesError> {
        let Some(guard) = self.ground.guard.clone() else { return Ok(None) };
        let old = self.ground.published.table.load_full();
        let (router, now, explain) = (Arc::clone(router), self.ground.clock.now(), (self.ground.explain)());
        let enforce = guard.enforce && look != Look::Forced;
        let finding = blocking(move || {
            let new = old.with_router(old.generation, router, now).map_err(|e| RulesError::Refused(e.to_string()))?;
            Ok(Arc::new(guard.judge(&old, &new, explain)))
        })
        .await??;
        if enforce && !finding.exceeded.is_empty() {
            return Err(RulesError::Guarded(finding));
        }
        Ok(Some(finding))
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RulesError> {
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
