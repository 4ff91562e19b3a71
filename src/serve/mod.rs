//! The composition root: builds every part from the settings, spawns every long-lived task, waits for the end.

mod admin_door;
mod certificates;
mod commands;
mod control;
mod doubts;
mod followers;
mod handles;
mod limits;
mod listeners;
mod memory;
pub mod pages;
mod shadow;
mod signals;
pub mod translate;
mod upstream_tls;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::catalog;
use crate::config::Settings;
use crate::dry_run::explain::explain;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Table;
use crate::forward;
use crate::forward::traced::Traces;
use crate::observe::access_log::{AccessLog, ReadFields};
use crate::observe::clock::Clock;
use crate::observe::events::Events;
use crate::observe::limit_book::Book;
use crate::observe::line_writer::LineThread;
use crate::observe::metrics::Metrics;
use crate::observe::reloads::Reloads;
use crate::observe::transitions::Transitions;
use crate::publish::guard::gather;
use crate::publish::rules::{Ground, Loaded, Permits, RuleFiles};
use crate::publish::shadow::{LastGood, ShadowFiles};
use crate::publish::{self, Inputs, Publisher, desk};
use crate::server::DataPlane;
use crate::upstream::Trusts;
use crate::upstream::checks::{Checks, Speech};

pub use signals::{Signal, Signals};

/// Why the proxy does not start. All that could be found before the first listener is bound is in one of them.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that this build cannot honour, or that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The catalog cannot be subscribed to as configured.
    #[error(transparent)]
    Catalog(#[from] catalog::CatalogError),
    /// The rules cannot be resolved.
    #[error(transparent)]
    Table(#[from] crate::engine::table::TableError),
    /// A listener, a log file or a thread cannot be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A running proxy. [`Serving::stop`] ends it in order; dropped, everything is cut.
pub struct Serving {
    /// Where clients connect, as bound.
    pub listen: Vec<SocketAddr>,
    /// Where operators connect, as bound; `None`: no admin side.
    pub admin: Option<SocketAddr>,
    plane: DataPlane,
    tasks: JoinSet<()>,
    catalog: tokio::task::JoinHandle<()>,
    access_log: Option<(AccessLog, LineThread)>,
    shadow: Option<shadow::Shadowing>,
    readiness: Arc<control::Readiness>,
    again: watch::Sender<()>,
    stop_catalog: watch::Sender<bool>,
    stop_admin: oneshot::Sender<()>,
    drain: crate::config::Drain,
}

/// The rules that [`Serving::start`] is given besides the settings.
#[derive(Debug)]
pub struct RuleSource {
    /// Where the rule files are.
    pub paths: Vec<PathBuf>,
    /// What they said at start.
    pub loaded: Loaded,
}

impl Serving {
    /// Starts every part. Returns when the listeners are bound and accept; readiness comes with the catalog's answer.
    /// Must be called on the control plane's runtime.
    ///
    /// # Errors
    /// Nothing is left running: see [`StartError`].
    pub async fn start(settings: Settings, rules: RuleSource) -> Result<Self, StartError> {
        let listeners = listeners::listeners(&settings.listen, !settings.trusted_proxies.is_empty())?;
        let descriptors = control::raise_descriptors();
        let limits = translate::limits(&settings.limits, descriptors, memory::automatic());
        let kept_by_checks = translate::kept_by_checks(&limits, descriptors);
        let forwarding = Arc::new(translate::forwarding(&settings));
        let protocol_label = forwarding.protocol_label.as_str().into();
        let debug_key = control::debug_key(settings.debug_token.clone())?;
        let Settings {
            admin,
            catalog,
            region,
            zone,
            workers,
            drain,
            checks,
            access_log,
            guard,
            shadow,
            label_keys,
            metrics,
            paths,
            ..
        } = settings;
        let permits = Permits { commands: checks.allow_commands };
        let workers = control::workers(workers);

        let clock = Clock::start();
        let metrics = Metrics::new(workers, translate::metrics(metrics));
        let events = Events::new(Arc::clone(&metrics));
        let reloads = Reloads::new(Arc::clone(&events), Arc::clone(&metrics));
        let (transitions, moved) = Transitions::channel();
        let access_log = access_log.map(translate::access_log);
        let access_log = access_log
            .map(|settings| AccessLog::start(&settings))
            .transpose()
            .map_err(|source| StartError::Io { what: "access_log.path".to_owned(), source })?;
        let fields = Arc::new(ArcSwap::from_pointee(ReadFields::of(&rules.loaded.set)));

        let shadowing = shadow.map(shadow::Shadowing::start).transpose()?;
        let (guard, offers) = translate::guard(guard, workers);
        let told = commands::Told::new(&rules.paths, &catalog.source, region.as_deref(), zone.as_deref());
        let place = translate::place(region, zone);
        let (catalog_settings, grace) = translate::catalog(catalog.source, label_keys);
        let router = Arc::clone(&rules.loaded.router);
        let table = Table::build(0, Snapshot::default(), Arc::clone(&router), place, clock.now())?;
        let window = Duration::from_millis(catalog.debounce);
        let (publisher, published) =
            Publisher::new(table, window, grace, clock, Arc::clone(&events), Arc::clone(&metrics));

        let trusts = Arc::new(Trusts::default());
        let wrong = upstream_tls::prepare(&trusts, &router).await;
        if !wrong.is_empty() {
            return Err(StartError::Setting(wrong.join("; ")));
        }
        upstream_tls::warn_of_unverified(&router);
        metrics.add_source(Arc::new(upstream_tls::Unverified(Arc::clone(&published.table))));
        let book = Arc::new(Book::new(workers, std::hash::RandomState::new()));
        let figures = limits::LimitFigures { book: Arc::clone(&book), table: Arc::clone(&published.table), clock };
        metrics.add_source(Arc::new(figures));
        let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let shared = forward::Shared {
            table: Arc::clone(&published.table),
            settings: forwarding,
            metrics: Arc::clone(&metrics),
            access_log: access_log
                .as_ref()
                .map(|(lines, _)| forward::worker::Log { lines: lines.clone(), fields: Arc::clone(&fields) }),
            transitions: transitions.clone(),
            watch: forward::watch::Watching {
                offers,
                shadow: shadowing.as_ref().map(|shadow| shadow.for_workers(&published)),
            },
            ready: Arc::clone(&ready),
            origin: clock.origin(),
            seed: control::seed(),
            trusts: Arc::clone(&trusts),
            workers,
            traces: debug_key.as_ref().map(|(_, keys)| Traces { keys: Arc::clone(keys), explain }),
            book: Arc::clone(&book),
        };
        let wanted = listeners.iter().map(|listen| listen.address).collect::<Vec<_>>();
        let terminators: Vec<_> = listeners.iter().map(|listen| listen.tls.clone()).collect();
        let plane = DataPlane::start(listeners, &shared, &limits)
            .await
            .map_err(|source| StartError::Io { what: format!("listen on {wanted:?}"), source })?;
        let listen = plane.addresses().to_vec();
        let terminators = listen.iter().zip(terminators).filter_map(|(at, tls)| Some((*at, tls?))).collect();
        let certificates = Arc::new(certificates::Certificates(terminators));
        metrics.add_source(Arc::clone(&certificates) as _);

        let (wanted, follow_wanted) = watch::channel(followers::wanted(&router));
        let (stop_catalog, stopping) = watch::channel(false);
        let surroundings = catalog::Surroundings { listeners: listen.clone() };
        let catalog::Running { updates, status, handle, task: catalog_task } =
            catalog::start(catalog_settings, &surroundings, follow_wanted, stopping)?;
        metrics.add_source(Arc::new(handles::CatalogFigures(Arc::clone(&status))));
        metrics.add_source(Arc::new(handles::PoolFigures(Arc::clone(&published.table))));

        let (desk, orders) = desk::desk();
        let readiness = control::Readiness::new(Arc::clone(&status), Arc::clone(&published.table), desk.clone(), ready);
        let (new_rules, rules_in) = mpsc::channel(1);
        let again = watch::Sender::new(());
        let mut tasks = JoinSet::new();
        tasks.spawn(pages::give_back());
        for (listener, terminator) in &certificates.0 {
            certificates::tell_doubts(*listener, terminator);
            let (terminator, again, reloads) = (Arc::clone(terminator), again.subscribe(), Arc::clone(&reloads));
            tasks.spawn(certificates::Certificates::follow(*listener, terminator, again, reloads));
        }
        let (new_candidates, candidates) = mpsc::channel(1);
        tasks.spawn(publisher.run(Inputs { catalog: updates, moved, rules: rules_in, candidates }));
        let (stale_services, stale) = watch::channel(BTreeSet::new());
        tasks.spawn(doubts::follow(Arc::clone(&status), Arc::clone(&events), stale_services));
        let services = Arc::new(Mutex::new([wanted.borrow().clone(), catalog::Wanted::default()]));
        let followers = followers::RuleFollowers {
            wanted,
            fields,
            published: published.clone(),
            status,
            services,
            shadow: false,
            trusts: Arc::clone(&trusts),
            reloads: Arc::clone(&reloads),
        };
        let last_good = LastGood::default();
        if let Some(shadow) = &shadowing {
            metrics.add_source(Arc::new(shadow.log.figures()));
            let files = ShadowFiles {
                paths: shadow.paths.clone(),
                permits,
                publisher: new_candidates,
                reloads: Arc::clone(&reloads),
                followers: followers::RuleFollowers { shadow: true, ..followers.clone() },
                last_good: last_good.clone(),
            };
            tasks.spawn(files.follow(again.subscribe()));
        }
        if let Some(guard) = &guard {
            tasks.spawn(gather(Arc::clone(&guard.recent)));
        }
        let ground = Ground {
            published: published.clone(),
            publisher: new_rules,
            clock,
            reloads: Arc::clone(&reloads),
            followers,
            guard,
            orders,
            shadow: last_good,
            explain: told.pair(),
        };
        tasks.spawn(RuleFiles::new(rules.paths, permits, &rules.loaded, ground).follow(again.subscribe()));
        let speech = Speech { trusts: Arc::clone(&trusts), protocol_label, kept: kept_by_checks };
        tasks.spawn(
            Checks::new(
                Arc::clone(&published.table),
                published.generation.clone(),
                stale,
                clock,
                transitions.clone(),
                Arc::clone(&metrics),
                speech,
            )
            .run(),
        );
        let judged = Arc::clone(&published.table);
        tasks.spawn(publish::outliers::follow(judged, clock, transitions.clone(), control::seed()));
        let keys = debug_key.as_ref().map(|(_, keys)| Arc::clone(keys));
        if let Some((path, keys)) = debug_key {
            let read = move |path: &Path| control::read_key(path, &keys);
            tasks.spawn(control::follow_secret(path, "debug_token", read, again.subscribe(), Arc::clone(&reloads)));
        }
        tasks.spawn(upstream_tls::follow(Arc::clone(&trusts), again.subscribe(), Arc::clone(&reloads)));
        tasks.spawn(Arc::clone(&readiness).follow(Arc::clone(&events), Arc::clone(&metrics)));

        let (stop_admin, stop) = oneshot::channel();
        let door = admin_door::open(admin, again.subscribe(), &reloads, &mut tasks).await?;
        let admin = door.as_ref().map(|door| door.bound);
        if let Some(door) = door {
            let actions = handles::Operators {
                table: Arc::clone(&published.table),
                clock,
                transitions,
                events: Arc::clone(&events),
            };
            let shadow = shadowing.as_ref().map(|shadow| shadow.for_admin(&published, &told));
            let router = admin::router(Admin {
                table: Arc::clone(&published.table),
                clock,
                book,
                metrics,
                events,
                reloads,
                actions: Arc::new(actions),
                catalog: Arc::new(handles::CatalogDesk { status: readiness.status(), handle }),
                ready: Arc::clone(&readiness) as _,
                debug_keys: keys,
                rules: desk,
                shadow,
                certificates,
                paths,
                access: door.access,
            });
            tasks.spawn(admin::serve(door.listener, router, door.reserve, async {
                // A dropped sender means the same: the end.
                let _ = stop.await;
            }));
        }
        told.admin_is(admin);
        Ok(Self {
            listen,
            admin,
            plane,
            tasks,
            catalog: catalog_task,
            access_log,
            shadow: shadowing,
            readiness,
            again,
            stop_catalog,
            stop_admin,
            drain,
        })
    }

    /// Reads rules, certificates, token files and log files again (SIGHUP).
    pub fn reload(&self) {
        self.again.send_replace(());
        if let Some((log, _)) = &self.access_log {
            log.reopen();
        }
        if let Some(shadow) = &self.shadow {
            shadow.log.reopen();
        }
        tracing::info!("reading rules, certificates, token files and log files again; other settings need a restart");
    }

    /// Ends in order: not ready, `drain.delay`, the data plane's drain, everything else. `hurry` skips the delay.
    /// The number of connections that had to be cut.
    pub async fn stop(self, hurry: impl Future<Output = ()>) -> usize {
        let Self { plane, mut tasks, catalog, access_log, shadow, readiness, stop_catalog, stop_admin, drain, .. } =
            self;
        readiness.drain();
        let delay = Duration::from_millis(drain.delay);
        tracing::info!(delay_ms = drain.delay, timeout_ms = drain.timeout, "draining: not ready, still serving");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = hurry => tracing::info!("told again: the delay is skipped"),
        }
        let drained = plane.drain(Duration::from_millis(drain.timeout)).await;
        // Everybody below may be gone already; then there is nobody to tell.
        let _ = stop_catalog.send(true);
        let _ = stop_admin.send(());
        catalog.abort();
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        if let Some((log, mut thread)) = access_log {
            drop(log);
            let closed = tokio::task::spawn_blocking(move || thread.close(LOG_CLOSE)).await;
            if !closed.unwrap_or(false) {
                tracing::warn!("the access log's last lines could not be written in time");
            }
        }
        if let Some(shadow::Shadowing { mut thread, .. }) = shadow {
            let closed = tokio::task::spawn_blocking(move || thread.close(LOG_CLOSE)).await;
            if !closed.unwrap_or(false) {
                tracing::warn!("the last disagreements of the shadow rules could not be written in time");
            }
        }
        drained.cut
    }
}

/// What the access log's writer may take for its last lines.
const LOG_CLOSE: Duration = Duration::from_secs(2);
