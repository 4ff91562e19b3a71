//! Starts the configured sources and brings their states together.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::merge::Merge;
use super::watch::board::Board;
use super::{CatalogError, CatalogSource, CatalogStatus, CatalogUpdate, Settings, Wanted, consul, file};
use crate::engine::instance::Instance;

/// What a source must know of the process around it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Our own listeners, as bound. Instances at these addresses are dropped: a request must not come back to us.
    pub listeners: Vec<SocketAddr>,
}

/// The running sources.
#[derive(Debug)]
pub struct Running {
    /// Whole-service states in arrival order. A slow reader gets fewer, newer ones.
    pub updates: mpsc::Receiver<CatalogUpdate>,
    /// Figures, readable at any time.
    pub status: Arc<CatalogStatus>,
    /// What an operator can do.
    pub handle: Handle,
    /// Ends when `shutdown` turns true, or when `updates` is dropped.
    pub task: JoinHandle<()>,
}

/// What an operator can do with the running sources.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    boards: Vec<Arc<Board>>,
    status: Arc<CatalogStatus>,
}

impl Handle {
    /// Lets go of what is held of a service. Returns how many instances that were.
    #[must_use = "0 means that nothing was held"]
    pub fn accept(&self, service: &str) -> usize {
        let accepted = self.boards.iter().map(|board| board.with(|desk, _| desk.accept(service))).sum();
        tracing::warn!(target: "pointsman::catalog", service, instances = accepted,
            "an operator accepted the catalog's loss: the held instances leave the table");
        if accepted > 0 {
            self.status.trust(service, &self.believed(service));
        }
        accepted
    }

    /// Everything that is believed of a service now.
    fn believed(&self, service: &str) -> Vec<Arc<Instance>> {
        let of = |board: &Arc<Board>| {
            board.with(|desk, _| {
                let keepers = desk.keepers().filter(|(_, name, _)| &***name == service);
                let groups = keepers.flat_map(|(_, _, keeper)| keeper.groups().flat_map(|(_, group)| group.to_vec()));
                groups.collect::<Vec<_>>()
            })
        };
        self.boards.iter().flat_map(of).collect()
    }
}

/// Starts every configured source.
///
/// `wanted` may change at any time; watches that stay are not dropped. `shutdown`: true stops everything.
///
/// # Errors
/// A setting that cannot be used, or a catalog file that cannot be read at start.
pub fn start(
    settings: Settings,
    surroundings: &Surroundings,
    wanted: watch::Receiver<Wanted>,
    shutdown: watch::Receiver<bool>,
) -> Result<Running, CatalogError> {
    let status = Arc::new(CatalogStatus::default());
    status.want(wanted.borrow().clone());
    let consul = settings
        .consul
        .map(|settings| consul::Source::start(settings, surroundings, wanted.clone(), &status))
        .transpose()?;
    let file = settings.file.map(|settings| file::FileSource::start(settings, surroundings, &status)).transpose()?;
    if consul.is_none() && file.is_none() {
        let problem = "no catalog is configured; set catalog.consul.address or catalog.file".to_owned();
        return Err(CatalogError::Setting { setting: "catalog", problem });
    }
    let handle = Handle { boards: consul.iter().map(consul::Source::board).collect(), status: Arc::clone(&status) };
    let (sender, updates) = mpsc::channel(256);
    let task = tokio::spawn(drive(consul, file, sender, wanted, shutdown, Arc::clone(&status)));
    Ok(Running { updates, status, handle, task })
}

async fn drive(
    mut consul: Option<consul::Source>,
    mut file: Option<file::FileSource>,
    sender: mpsc::Sender<CatalogUpdate>,
    mut wanted: watch::Receiver<Wanted>,
    mut shutdown: watch::Receiver<bool>,
    status: Arc<CatalogStatus>,
) {
    let mut merge = Merge::default();
    let mut rules_follow = true;
    loop {
        let (source, next) = tokio::select! {
            next = step(&mut consul) => (0, next),
            next = step(&mut file) => (1, next),
            changed = wanted.changed(), if rules_follow => {
                rules_follow = changed.is_ok();
                status.want(wanted.borrow_and_update().clone());
                continue;
            }
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = sender.closed() => return,
        };
        match next {
            Ok(update) => {
                tokio::select! {
                    sent = sender.send(merge.apply(source, update)) => if sent.is_err() { return },
                    _ = shutdown.wait_for(|stop| *stop) => return,
                }
            }
            Err(error) => {
                tracing::error!(target: "pointsman::catalog", %error,
                    "a catalog source has stopped; its last good state stays in force");
                match source {
                    0 => consul = None,
                    _ => file = None,
                }
            }
        }
    }
}

async fn step<S: CatalogSource>(source: &mut Option<S>) -> Result<CatalogUpdate, CatalogError> {
    match source {
        Some(source) => source.next().await,
        None => std::future::pending().await,
    }
}
