//! Tasks under way, of which it is known whose each is, also when it ends in a panic.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinError, JoinSet};

/// At most so many tasks at a time, each for one `W`. All end when this is dropped.
#[derive(Debug)]
pub(super) struct Running<W, T> {
    tasks: JoinSet<T>,
    whose: HashMap<Id, W>,
    most: usize,
}

impl<W, T: Send + 'static> Running<W, T> {
    /// None yet.
    pub(super) fn at_most(most: usize) -> Self {
        Self { tasks: JoinSet::new(), whose: HashMap::new(), most }
    }

    /// Whether one more may begin.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < self.most
    }

    /// Begins one.
    pub(super) fn begin(&mut self, whose: W, task: impl Future<Output = T> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.whose.insert(id, whose);
    }

    /// The next one to end, and whose it was; an error is a panic in it. `None` while there is none. Safe to be cancelled.
    pub(super) async fn next(&mut self) -> Option<(W, Result<T, JoinError>)> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        self.whose.remove(&id).map(|whose| (whose, ended))
    }
}
