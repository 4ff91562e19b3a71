//! Shadow rule files: followed like the live ones; what cannot be used keeps the last good candidate, and says why.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::candidate::NewCandidate;
use super::rules::{Followers, Loaded, Permits, RulesError, blocking, read};
use crate::dry_run::numbers::counted;
use crate::engine::diagnostic::{Diagnostics, Source};
use crate::files::FileWatch;
use crate::observe::reloads::Reloads;

/// The word for shadow rules among the things that are reloaded.
const WHAT: &str = "shadow_rules";

/// The shadow rules beside the table, as written; `None` until there are good ones.
#[derive(Clone, Debug, Default)]
pub struct LastGood(Arc<Mutex<Option<Arc<Loaded>>>>);

impl LastGood {
    /// As of now.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, loaded: Arc<Loaded>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
    }
}

/// The shadow rules' loader.
pub struct ShadowFiles<F> {
    /// Where they are.
    pub paths: Vec<PathBuf>,
    /// What they may ask of the machine, as the live ones: they may be promoted.
    pub permits: Permits,
    /// Where they go.
    pub publisher: mpsc::Sender<NewCandidate>,
    /// Who is told how it went.
    pub reloads: Arc<Reloads>,
    /// Who must know the services that they name.
    pub followers: F,
    /// What is beside the table.
    pub last_good: LastGood,
}

impl<F: Followers> ShadowFiles<F> {
    /// Reads them at once, then whenever they change or `again` says so, for as long as the publisher lives.
    pub async fn follow(self, mut again: watch::Receiver<()>) {
        let (mut last, mut lists) = (Vec::new(), Vec::new());
        self.look(&mut last, &mut lists, true).await;
        let mut watch = self.watch(&lists);
        // What changed between the last reading and the watch is seen by nobody else.
        let mut unseen = true;
        loop {
            let forced = tokio::select! {
                () = std::future::ready(()), if unseen => false,
                () = watch.changed() => false,
                Ok(()) = again.changed() => true,
                () = self.publisher.closed() => return,
            };
            unseen = false;
            let followed = lists.clone();
            self.look(&mut last, &mut lists, forced).await;
            if lists != followed {
                watch = self.watch(&lists);
                unseen = true;
            }
        }
    }

    fn watch(&self, lists: &[PathBuf]) -> FileWatch {
        FileWatch::new(self.paths.iter().chain(lists).cloned().collect())
    }

    async fn look(&self, last: &mut Vec<Arc<Source>>, lists: &mut Vec<PathBuf>, forced: bool) {
        match self.reload(last, lists, forced).await {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                let files = counted(loaded.sources.len() as u64, "shadow file");
                let words = format!("{files} beside the rules in force");
                self.reloads.accepted(WHAT, words, loaded.warnings.clone());
            }
            Err(error) => {
                let words = format!("{error}; the shadow rules before stay");
                tracing::warn!("shadow rules: {words}");
                let found = if let RulesError::Wrong(found) = error { found } else { Diagnostics::default() };
                self.reloads.refused(WHAT, words, found);
            }
        }
    }

    async fn reload(
        &self,
        last: &mut Vec<Arc<Source>>,
        lists: &mut Vec<PathBuf>,
        forced: bool,
    ) -> Result<Option<Arc<Loaded>>, RulesError> {
        let (paths, permits) = (self.paths.clone(), self.permits);
        let loaded = Arc::new(blocking(move || read(&paths, permits)).await??);
        if !forced && loaded.sources == *last && loaded.lists.is_empty() {
            return Ok(None);
        }
        last.clone_from(&loaded.sources);
        lists.clone_from(&loaded.lists);
        self.followers.prepare(&loaded.router).await;
        let stopped = || RulesError::Refused("the publisher has stopped".to_owned());
        let (done, answer) = oneshot::channel();
        let new = NewCandidate { router: Arc::clone(&loaded.router), done };
        self.publisher.send(new).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?.map_err(|error| RulesError::Refused(error.to_string()))?;
        self.followers.applied(&loaded);
        self.last_good.replace(Arc::clone(&loaded));
        Ok(Some(loaded))
    }
}
