//! The operators' listener, before anything is served on it: its address, and who may do what there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{StartError, control};
use crate::admin::Access;
use crate::config;
use crate::observe::reloads::Reloads;

/// A listener that is bound.
pub(super) struct Door {
    /// Where operators connect.
    pub(super) listener: TcpListener,
    /// Its address, with the port that the system chose.
    pub(super) bound: SocketAddr,
    /// Who may do what.
    pub(super) access: Arc<Access>,
    /// Descriptors kept for it.
    pub(super) reserve: usize,
}

/// Binds the listener and follows its token's file; `None` where no address is configured.
///
/// # Errors
/// The address cannot be bound, or the token's file cannot be read.
pub(super) async fn open(
    settings: config::Admin,
    again: watch::Receiver<()>,
    reloads: &Arc<Reloads>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Door>, StartError> {
    let config::Admin { address, token_file, hosts, reserve } = settings;
    let Some(address) = address else { return Ok(None) };
    let failed = |source| StartError::Io { what: format!("admin.address {address}"), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let token = Arc::new(ArcSwapOption::empty());
    if let Some(path) = token_file {
        let path = PathBuf::from(path);
        control::read_token(&path, &token)
            .map_err(|source| StartError::Io { what: format!("admin.token_file {}", path.display()), source })?;
        let kept = Arc::clone(&token);
        let read = move |path: &Path| control::read_token(path, &kept);
        tasks.spawn(control::follow_secret(path, "admin_token", read, again, Arc::clone(reloads)));
    }
    let access = Arc::new(Access { loopback: bound.ip().is_loopback(), token, hosts });
    Ok(Some(Door { listener, bound, access, reserve }))
}
