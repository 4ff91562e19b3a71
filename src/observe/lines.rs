//! Where requests wait for a place at an instance: one line for each, shared by the workers.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

/// The lines of all instances, shared by the workers. Asked for once an instance and worker, not in a
/// request.
#[derive(Debug, Default)]
pub struct Lines(Mutex<FxHashMap<u64, Weak<Notify>>>);

impl Lines {
    /// The line of the instance with this live state. Who waits there is called in turn.
    #[must_use]
    pub fn of(&self, id: u64) -> Arc<Notify> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&id).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Notify::new());
        lines.insert(id, Arc::downgrade(&line));
        line
    }
}
