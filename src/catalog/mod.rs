//! Catalogs: who says which instances there are, and what we believe of it.
//!
//! A source hands over the *whole* state of a service, never a delta, and only states that it stands behind: what may
//! remove an instance is decided in [`watch::keeper`]. Rule above all: only a complete, well-formed, trusted answer
//! changes anything; an error, silence or doubt never removes an instance.
//!
//! In reading order: the words here, [`start()`], then [`consul`] and [`mod@file`], and what they share in [`watch`] and
//! [`http`].
pub mod consul;
pub mod file;
pub mod http;
mod merge;
pub mod settings;
mod start;
pub mod status;
pub mod watch;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use crate::engine::instance::Instance;
use crate::engine::label::Text;
pub use settings::Settings;
pub use start::{Handle, Running, Surroundings, start};
pub use status::CatalogStatus;

/// Everything the catalog says about one service. Whole, never a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// The catalog's name.
    pub name: Text,
    /// The catalog's index of this state (`X-Consul-Index`; a counter for files). For `explain`.
    pub index: u64,
    /// Every instance, held ones included, sorted by identity. Those that did not change are the same `Arc` as before.
    pub instances: Vec<Arc<Instance>>,
    /// Whether some of them are only held.
    pub note: Note,
}

/// What we think of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "trust")]
pub enum Note {
    /// The catalog says exactly this.
    #[default]
    Trusted,
    /// The catalog's last answer lacks some of these instances, and we do not believe it yet.
    Held {
        /// How many are kept against the answer.
        instances: usize,
        /// Why.
        why: watch::keeper::Doubt,
    },
}

/// One step of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogUpdate {
    /// The state of a service from now on.
    Service(ServiceState),
    /// The service is not in the catalog any more (trusted), or nobody wants it: it leaves the table.
    Gone(Text),
}

impl CatalogUpdate {
    /// The service it is about.
    #[must_use]
    pub fn service(&self) -> &Text {
        match self {
            Self::Service(state) => &state.name,
            Self::Gone(name) => name,
        }
    }
}

/// The services that the rules name. A changed value never drops the watches that stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The catalog's names, as written in the rules.
    pub services: BTreeSet<Text>,
    /// Every other service of the catalog too, for a file with `service: "*"`.
    pub all: bool,
}

/// A source that cannot go on. What can be retried is retried inside the source and never comes out as an error.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A setting cannot be used.
    #[error("catalog setting {setting}: {problem}")]
    Setting {
        /// Which, as in the configuration file.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The catalog could not be asked.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The catalog answered what nobody can use.
    #[error("the catalog's answer cannot be used: {0}")]
    Answer(String),
    /// The source has stopped.
    #[error("the catalog source has stopped")]
    Stopped,
}

/// A catalog. New kinds implement this and nothing else.
pub trait CatalogSource: Send + 'static {
    /// The next state of some service, in arrival order; waits until there is one. A state that the caller did not
    /// fetch in time is replaced by its successor, so a slow caller costs no memory.
    ///
    /// # Errors
    /// Only what no retry inside the source can cure; the source is not asked again.
    fn next(&mut self) -> impl Future<Output = Result<CatalogUpdate, CatalogError>> + Send;
}
