//! Small parts of the control plane: readiness, tokens, descriptors, luck.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use super::{StartError, upstream_tls};
use crate::admin::handles::{Ready, ReadyView};
use crate::catalog::CatalogStatus;
use crate::config::{Auto, DebugToken};
use crate::debug_token::{Key, Keys};
use crate::engine::diagnostic::Diagnostics;
use crate::engine::table::Table;
use crate::files::FileWatch;
use crate::observe::events::{Events, Kind, Report};
use crate::observe::metrics::Metrics;
use crate::observe::names;
use crate::observe::reloads::Reloads;
use crate::publish::Desk;

/// How often readiness is looked at for events, metrics and the workers' refusals.
const LOOK: Duration = Duration::from_millis(100);

/// Whether traffic may come: the catalog's readiness, our own place, and the drain.
#[derive(Debug)]
pub struct Readiness {
    status: Arc<CatalogStatus>,
    table: Arc<ArcSwap<Table>>,
    rules: Desk,
    draining: AtomicBool,
    /// Whether the table has once held everybody of whom the catalog told.
    published: AtomicBool,
    /// What the workers read.
    ready: Arc<AtomicBool>,
}

impl Readiness {
    /// Readiness by the catalog's status; `ready` is kept for the workers.
    #[must_use]
    pub fn new(
        status: Arc<CatalogStatus>,
        table: Arc<ArcSwap<Table>>,
        rules: Desk,
        ready: Arc<AtomicBool>,
    ) -> Arc<Self> {
        let (draining, published) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { status, table, rules, draining, published, ready })
    }

    /// Not ready from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The catalog's status.
    #[must_use]
    pub fn status(&self) -> Arc<CatalogStatus> {
        Arc::clone(&self.status)
    }

    /// Tells of changes: events, metrics, and what workers say to those who come too early.
    pub async fn follow(self: Arc<Self>, events: Arc<Events>, metrics: Arc<Metrics>) {
        let mut last = None;
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            let now = self.ready();
            metrics.gauge(&names::READY, &[], f64::from(u8::from(now.ready)));
            metrics.gauge(&names::DEGRADED, &[], f64::from(u8::from(now.degraded)));
            let state = Some((now.ready, now.degraded));
            if state != last && (now.ready || last.is_some()) {
                let kind = if now.ready { Kind::Ready } else { Kind::NotReady };
                let words = match (now.ready, now.degraded) {
                    (true, false) => "everything wanted is known".to_owned(),
                    (true, true) => format!("ready but degraded: {}", now.reasons.join("; ")),
                    (false, _) => now.reasons.join("; "),
                };
                events.record(Report::new(kind, words));
            }
            last = state;
        }
    }

    /// The catalog's first answers are published a little after they came (the publisher takes those of a window
    /// together); until then a request for one of them would meet nobody.
    fn is_published(&self) -> bool {
        if self.published.load(Ordering::Relaxed) {
            return true;
        }
        let table = self.table.load();
        let told = self.status.services();
        let known = told.iter().filter(|(_, _, figures)| figures.instances.iter().any(|count| *count > 0));
        known.into_iter().all(|(service, _, _)| table.snapshot.service(service).is_some())
    }

    /// A file that prefers labels which the proxy itself does not have keeps everybody on level 0.
    fn placeless(&self) -> Vec<String> {
        let table = self.table.load();
        let lost = table
            .router
            .files
            .iter()
            .filter(|file| !file.locality.prefer.is_empty() && !table.place.knows_any(&file.locality.prefer));
        lost.map(|file| {
            format!(
                "{} prefers {}, but the proxy's own region and zone are not set (--region, --zone): everybody is local",
                file.ruleset.source.name,
                file.locality.prefer.join(", ")
            )
        })
        .collect()
    }
}

impl ReadyView for Readiness {
    fn ready(&self) -> Ready {
        let catalog = self.status.readiness();
        let mut reasons = catalog.reasons;
        let placeless = self.placeless();
        // Somebody's change is not in force, and whoever wrote the file may be looking nowhere else.
        let refused = self.rules.in_force().refused.map(|finding| {
            format!("the guard refused the rule files ({}); the rules before stay", finding.exceeded.join("; "))
        });
        let degraded = catalog.degraded || !placeless.is_empty() || refused.is_some();
        reasons.extend(placeless);
        reasons.extend(refused);
        let notes = upstream_tls::unverified(&self.table.load().router).map(upstream_tls::note).collect();
        if self.draining.load(Ordering::Relaxed) {
            reasons.insert(0, "draining".to_owned());
            return Ready { ready: false, degraded, reasons, notes };
        }
        let ready = catalog.ready && self.is_published();
        // Before anybody is told: who hears that we are ready sends requests, and none of them comes too early.
        self.ready.store(ready, Ordering::Relaxed);
        if catalog.ready && !ready {
            reasons.push("the first table is being published".to_owned());
            return Ready { ready: false, degraded, reasons, notes };
        }
        if ready {
            self.published.store(true, Ordering::Relaxed);
        }
        Ready { ready, degraded, reasons, notes }
    }
}

/// Reads a token file: its first line, without spaces around it.
///
/// # Errors
/// It cannot be read, or it is empty.
pub fn read_token(path: &Path, token: &ArcSwapOption<String>) -> io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let first = text.lines().next().unwrap_or("").trim();
    if first.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    token.store(Some(Arc::new(first.to_owned())));
    Ok(())
}

/// The key of debug tokens and where it is read again; `None`: there are no such tokens.
///
/// # Errors
/// The file cannot be read, or the key is too short.
pub fn debug_key(from: Option<DebugToken>) -> Result<Option<(PathBuf, Keys)>, StartError> {
    let Some(DebugToken { key_file }) = from else { return Ok(None) };
    let (path, keys) = (PathBuf::from(key_file), Keys::default());
    match read_key(&path, &keys) {
        Ok(()) => Ok(Some((path, keys))),
        Err(source) => Err(StartError::Io { what: format!("debug_token.key_file {}", path.display()), source }),
    }
}

/// Reads the key of debug tokens.
///
/// # Errors
/// See [`Key::read`].
pub fn read_key(path: &Path, keys: &Keys) -> io::Result<()> {
    keys.store(Some(Arc::new(Key::read(path)?)));
    Ok(())
}

/// Reads a secret again whenever its file changes, or when told to. `what`: as reloads name it.
pub async fn follow_secret(
    path: PathBuf,
    what: &'static str,
    read: impl Fn(&Path) -> io::Result<()>,
    mut again: watch::Receiver<()>,
    reloads: Arc<Reloads>,
) {
    let mut watch = FileWatch::new(vec![path.clone()]);
    loop {
        tokio::select! {
            () = watch.changed() => {}
            Ok(()) = again.changed() => {}
        }
        match read(&path) {
            Ok(()) => reloads.accepted(what, format!("{} was read again", path.display()), Diagnostics::default()),
            Err(error) => {
                let words = format!("{}: {error}; what was read before stays", path.display());
                reloads.refused(what, words, Diagnostics::default());
            }
        }
    }
}

/// Raises the soft descriptor limit to the hard one; the soft limit that is in force.
pub fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current, limit.maximum);
    if soft != hard
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
    {
        tracing::warn!(%error, "the descriptor limit cannot be raised");
        return soft.unwrap_or(u64::MAX);
    }
    hard.unwrap_or(u64::MAX)
}

/// The number of workers: as set, or one a core that this process may use.
#[must_use]
pub fn workers(setting: Auto<usize>) -> usize {
    match setting {
        Auto::Set(count) => count.max(1),
        Auto::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// A seed from the system, by way of the standard library's randomly keyed hasher.
#[must_use]
pub fn seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
