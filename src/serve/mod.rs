//! The composition root: builds every part from the settings, spawns every long-lived task, waits for the end.

mod control;
mod followers;
mod handles;
mod signals;
mod translate;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::catalog::{self, Wanted};
use crate::config::Settings;
use crate::engine::locality::Place;
use crate::engine::route::Router;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Table;
use crate::forward;
use crate::observe::access_log::{AccessLog, ReadFields};
use crate::observe::clock::Clock;
use crate::observe::events::Events;
use crate::observe::line_writer::LineThread;
use crate::observe::metrics::Metrics;
use crate::observe::reloads::Reloads;
use crate::observe::transitions::Transitions;
use crate::publish::rules::{Loaded, RuleFiles};
use crate::publish::{Inputs, Published, Publisher};
use crate::server::DataPlane;
use crate::upstream::checks::Checks;

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
    readiness: Arc<control::Readiness>,
    again: Arc<Notify>,
    stop_catalog: watch::Sender<bool>,
    stop_admin: oneshot::Sender<()>,
    drain: crate::config::Drain,
}
