//! What admin, metrics and readiness may ask at any time (CATALOGS.md 2.7). Reading never delays a watch: each cell has a
//! lock of its own, held for the copy of a few numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;

use super::watch::backoff::Failure;
use super::{Note, Wanted};
use crate::engine::instance::Instance;
use crate::engine::label::Text;

/// Figures of every source and every service.
#[derive(Debug)]
pub struct CatalogStatus {
    started: Instant,
    /// Whether it has been ready: a service that comes later takes nothing from those that are served.
    was_ready: AtomicBool,
    wanted: RwLock<Wanted>,
    sources: RwLock<BTreeMap<String, Arc<Cell<SourceFigures>>>>,
    services: RwLock<BTreeMap<Text, Parts>>,
}

/// One service at each source, by the source's name.
type Parts = BTreeMap<String, Arc<Cell<ServiceFigures>>>;

/// One set of figures.
#[derive(Debug, Default)]
pub struct Cell<T>(Mutex<T>);

impl<T: Clone> Cell<T> {
    /// Changes them.
    pub fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.lock())
    }

    /// A copy.
    #[must_use]
    pub fn read(&self) -> T {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source: one subscription to one catalog (a datacenter, a file).
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceFigures {
    /// The address or the file in use.
    pub agent: String,
    /// Whether the last exchange worked.
    pub connected: bool,
    /// The last failure, for people.
    pub last_error: Option<String>,
    /// What kind it was.
    pub last_failure: Option<Failure>,
    /// When it happened.
    #[serde(skip)]
    pub last_error_at: Option<Instant>,
    /// When something last worked.
    #[serde(skip)]
    pub last_good_at: Option<Instant>,
    /// Milliseconds that the last failed watch waits before it asks again; 0 when nothing waits.
    pub backoff_ms: u64,
    /// When the token file was last changed, in seconds of Unix time.
    pub token_mtime: Option<u64>,
    /// Connections open now.
    pub connections: usize,
    /// Services with a watch of their own; rotated, parked.
    pub watched: usize,
    /// Services read by rotation, because the connection budget is spent.
    pub rotated: usize,
    /// Whether the source answers for every service there is (a file does).
    pub answers_all: bool,
    /// Whether each service of its first list is among those that readiness waits for.
    pub listed: bool,
    /// Counters since start.
    pub counters: Counters,
}

/// Counters since start; they only grow.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counters {
    /// Requests sent.
    pub requests: u64,
    /// Answers after which nothing was different.
    pub idle_wakes: u64,
    /// Failures of any kind.
    pub failures: u64,
    /// Watches begun again from index 0 after a failure.
    pub resets: u64,
    /// Answers whose index was below the one before.
    pub lower_index: u64,
    /// Instances held against an answer.
    pub held: u64,
    /// Held instances let go because their time was over.
    pub accepted_after_hold: u64,
    /// Held instances let go because a second reading agreed.
    pub confirmed: u64,
    /// Instances that an answer held and that could not be used.
    pub skipped: u64,
    /// Answers 429 and 503.
    pub congested: u64,
    /// Answers 403.
    pub forbidden: u64,
    /// Other answers 5xx.
    pub server_errors: u64,
    /// Body bytes as sent.
    pub bytes: u64,
}

/// One service as one source knows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceFigures {
    /// Index of the last good answer.
    pub index: u64,
    /// When it came.
    #[serde(skip)]
    pub answered_at: Option<Instant>,
    /// Whether the state is from the copy on disk.
    pub from_disk: bool,
    /// Trusted, or held and why.
    pub note: Note,
    /// Instances passing, warning, critical, in maintenance.
    pub instances: [usize; 4],
    /// Requests about it.
    pub requests: u64,
    /// Answers after which nothing was different.
    pub idle_wakes: u64,
    /// Instances of the last answer that could not be used.
    pub skipped: usize,
    /// How it is followed.
    pub followed: Followed,
    /// The last failure, unless an answer came after it.
    pub failing: Option<String>,
}

/// How a service is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Followed {
    /// Not asked yet.
    #[default]
    Starting,
    /// A watch of its own.
    Watched,
    /// Read by rotation: the connection budget is spent.
    Rotated,
    /// Not in the catalog's list: watched from the moment it appears there.
    Parked,
}

/// What `/ready` says about the catalogs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether requests can be routed.
    pub ready: bool,
    /// Ready, but something is missing or old.
    pub degraded: bool,
    /// Why not ready, or degraded.
    pub reasons: Vec<String>,
}

/// After this time one answered service is enough to be ready (SEMANTICS.md, *Ready*).
const PATIENCE: Duration = Duration::from_secs(30);
/// A source that has not worked for so long is stale.
pub const STALE: Duration = Duration::from_secs(30);

impl Default for CatalogStatus {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            was_ready: AtomicBool::new(false),
            wanted: RwLock::default(),
            sources: RwLock::default(),
            services: RwLock::default(),
        }
    }
}

impl CatalogStatus {
    /// The figures of a source; made when they do not exist.
    #[must_use]
    pub fn source(&self, name: &str) -> Arc<Cell<SourceFigures>> {
        let mut all = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// The figures of a service at a source; made when they do not exist.
    #[must_use]
    pub fn service(&self, source: &str, service: &Text) -> Arc<Cell<ServiceFigures>> {
        let mut all = self.services.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(service.clone()).or_default().entry(source.to_owned()).or_default())
    }

    /// A source does not follow a service any more.
    pub fn forget(&self, source: &str, service: &str) {
        let mut all = self.services.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = all.get_mut(service) {
            parts.remove(source);
            if parts.is_empty() {
                all.remove(service);
            }
        }
    }

    /// The services that readiness waits for.
    pub fn want(&self, wanted: Wanted) {
        *self.wanted.write().unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    /// Every source, by name.
    #[must_use]
    pub fn sources(&self) -> Vec<(String, SourceFigures)> {
        let all = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, cell)| (name.clone(), cell.read())).collect()
    }

    /// Every service at every source: service, source, figures.
    #[must_use]
    pub fn services(&self) -> Vec<(Text, String, ServiceFigures)> {
        let all = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let each =
            all.iter().flat_map(|(service, parts)| parts.iter().map(move |(source, cell)| (service, source, cell)));
        each.map(|(service, source, cell)| (service.clone(), source.clone(), cell.read())).collect()
    }

    /// Nothing is held of a service any more: what is said of it does not wait for the catalog's next answer. Where
    /// several sources know the service, their counts do.
    pub fn trust(&self, service: &str, believed: &[Arc<Instance>]) {
        let all = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let parts = all.get(service);
        let alone = parts.is_some_and(|parts| parts.len() == 1);
        for cell in parts.into_iter().flat_map(BTreeMap::values) {
            cell.with(|figures| {
                figures.note = Note::Trusted;
                if alone {
                    figures.count(believed.iter().map(AsRef::as_ref));
                }
            });
        }
    }

    /// Whether a service's state is older than [`STALE`]: its holds need active checks (E5).
    #[must_use]
    pub fn stale(&self, service: &str) -> bool {
        let all = self.services.read().unwrap_or_else(PoisonError::into_inner);
        all.get(service).is_some_and(|parts| {
            parts.values().any(|cell| {
                let figures = cell.read();
                figures.failing.is_some() && figures.answered_at.is_none_or(|at| at.elapsed() > STALE)
            })
        })
    }

    /// What `/ready` says now: every wanted service has had one good answer or comes from the copy on disk; after 30 s one
    /// of them is enough. Where all services are wanted, these are the ones that the list names, and the list is waited for.
    /// Once ready, it stays so: what is not known yet of a service that came later degrades it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let (mut known, mut reasons, mut missing, mut copied) = (0, Vec::new(), Vec::new(), false);
        let sources = self.sources();
        let Wanted { services: named, all } = self.wanted.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut wanted: BTreeMap<Text, bool> = named.into_iter().map(|service| (service, true)).collect();
        if all {
            for service in self.services.read().unwrap_or_else(PoisonError::into_inner).keys() {
                wanted.entry(service.clone()).or_insert(false);
            }
        }
        for (service, is_named) in &wanted {
            match self.known(service, *is_named, &sources) {
                Known::Answered => known += 1,
                Known::Disk => {
                    known += 1;
                    copied = true;
                    reasons.push(format!("service {service}: from the copy on disk, the catalog has not answered yet"));
                }
                Known::Missing => missing.push(service.to_string()),
            }
        }
        let late = self.started.elapsed() >= PATIENCE;
        // A list that has come is of no use before everybody in it is waited for.
        let heard =
            |source: &SourceFigures| source.last_good_at.is_some() && (source.answers_all || source.listed || !all);
        let everywhere = !sources.is_empty() && sources.iter().all(|(_, source)| heard(source));
        let counted = !(wanted.is_empty() || all) || copied || everywhere;
        let enough = missing.is_empty() && counted || late && known > 0;
        let ready = self.was_ready.fetch_or(enough, Ordering::Relaxed) || enough;
        if !missing.is_empty() {
            reasons.push(format!("no answer from the catalog yet for: {}", missing.join(", ")));
        }
        for (name, _) in sources.iter().filter(|(_, source)| all && source.connected && !heard(source)) {
            reasons.push(format!("{name}: its list of services is not read yet"));
        }
        for (name, source) in &sources {
            if !source.connected {
                let error = source.last_error.as_deref().unwrap_or("not connected yet");
                reasons.push(format!("{name}: {error}"));
            }
        }
        for (service, source, figures) in self.services() {
            if let Note::Held { instances, why } = figures.note {
                reasons.push(format!("{source}: service {service} holds {instances} instances {}", why.words()));
            }
        }
        Readiness { ready, degraded: ready && !reasons.is_empty(), reasons }
    }

    /// What the sources know of a service: all of them where a rule names it, otherwise those whose lists do.
    fn known(&self, service: &Text, is_named: bool, sources: &[(String, SourceFigures)]) -> Known {
        let all = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let parts = all.get(service);
        let asked = |name: &String| is_named || parts.is_some_and(|parts| parts.contains_key(name));
        let mut worst = if sources.is_empty() { Known::Missing } else { Known::Answered };
        for (name, source) in sources.iter().filter(|(name, _)| asked(name)) {
            let figures = parts.and_then(|parts| parts.get(name)).map(|cell| cell.read()).unwrap_or_default();
            let answered = figures.answered_at.is_some() || source.answers_all && source.last_good_at.is_some();
            worst = worst.max(match (answered, figures.from_disk) {
                (true, _) => Known::Answered,
                (false, true) => Known::Disk,
                (false, false) => Known::Missing,
            });
        }
        worst
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    Answered,
    Disk,
    Missing,
}

impl ServiceFigures {
    /// Counts instances by state.
    pub fn count<'i>(&mut self, instances: impl Iterator<Item = &'i Instance>) {
        self.instances = [0; 4];
        for instance in instances {
            self.instances[instance.status as usize] += 1;
        }
    }

    /// Milliseconds since the last good answer.
    #[must_use]
    pub fn age_ms(&self) -> Option<u64> {
        self.answered_at.map(|at| at.elapsed().as_millis() as u64)
    }
}

/// Seconds of Unix time of a file's change.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_means_every_wanted_service_answered_or_one_after_half_a_minute() {
        let status = CatalogStatus::default();
        status.want(Wanted { services: ["web".into(), "api".into()].into(), all: false });
        status.source("consul").with(|s| s.connected = true);
        assert!(!status.readiness().ready);
        status.service("consul", &"web".into()).with(|s| s.answered_at = Some(Instant::now()));
        let partly = status.readiness();
        assert!(!partly.ready && partly.reasons[0].contains("api"), "{partly:?}");
        tokio::time::advance(PATIENCE).await;
        let late = status.readiness();
        assert!(late.ready && late.degraded);
        status.service("consul", &"api".into()).with(|s| s.answered_at = Some(Instant::now()));
        assert_eq!(status.readiness(), Readiness { ready: true, ..Readiness::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_wanted_ready_means_the_list_and_each_of_it() {
        let status = CatalogStatus::default();
        status.want(Wanted { all: true, ..Wanted::default() });
        status.source("consul").with(|s| s.connected = true);
        assert!(!status.readiness().ready, "the list is not known");
        status.source("consul").with(|s| s.last_good_at = Some(Instant::now()));
        assert!(!status.readiness().ready, "it answered, but nobody has read in the list who is wanted");
        drop(status.service("consul", &"web".into()));
        status.source("consul").with(|s| s.listed = true);
        let partly = status.readiness();
        assert!(!partly.ready && partly.reasons[0].contains("web"), "{partly:?}");
        status.service("consul", &"web".into()).with(|s| s.answered_at = Some(Instant::now()));
        assert_eq!(status.readiness(), Readiness { ready: true, ..Readiness::default() });

        // Of a service that comes later not everything is known; the others are served as before.
        drop(status.service("consul", &"new".into()));
        let later = status.readiness();
        assert!(later.ready && later.degraded && later.reasons[0].contains("new"), "{later:?}");

        let cold = CatalogStatus::default();
        cold.want(Wanted { all: true, ..Wanted::default() });
        cold.source("consul").with(|s| s.last_error = Some("connection refused".to_owned()));
        cold.service("consul", &"web".into()).with(|s| s.from_disk = true);
        assert!(cold.readiness().ready && cold.readiness().degraded, "the copy on disk will do");
    }

    #[tokio::test(start_paused = true)]
    async fn each_datacenter_is_waited_for_and_counts_for_what_it_lists() {
        let status = CatalogStatus::default();
        status.want(Wanted { all: true, ..Wanted::default() });
        let lists = |source: &str, service: &str| {
            status
                .source(source)
                .with(|s| (s.connected, s.last_good_at, s.listed) = (true, Some(Instant::now()), true));
            drop(status.service(source, &service.into()));
        };
        status.source("dc2").with(|s| s.connected = true);
        lists("dc1", "web");
        status.service("dc1", &"web".into()).with(|s| s.answered_at = Some(Instant::now()));
        let half = status.readiness();
        assert!(!half.ready && half.reasons == ["dc2: its list of services is not read yet"], "{half:?}");
        lists("dc2", "api");
        assert!(!status.readiness().ready, "it lists a service and has not answered for it");
        status.service("dc2", &"api".into()).with(|s| s.answered_at = Some(Instant::now()));
        assert_eq!(status.readiness(), Readiness { ready: true, ..Readiness::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn the_copy_on_disk_makes_ready_but_degraded_and_nothing_at_all_never_does() {
        let status = CatalogStatus::default();
        status.want(Wanted { services: ["web".into()].into(), all: false });
        status.source("consul").with(|s| s.last_error = Some("connection refused".to_owned()));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(!status.readiness().ready);
        status.service("consul", &"web".into()).with(|s| s.from_disk = true);
        let warm = status.readiness();
        assert!(warm.ready && warm.degraded && warm.reasons.len() == 2, "{warm:?}");
    }
}
