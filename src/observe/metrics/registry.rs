//! The series that exist: label values to one cell per worker. Locked to find or create, never to count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::engine::label::Text;

/// One series: its label values and a cell per writer.
#[derive(Debug)]
pub struct Series<C> {
    labels: Box<[Text]>,
    cells: Box<[OnceLock<Arc<C>>]>,
}

impl<C: Default> Series<C> {
    /// The writer's own cell; made at its first use.
    pub fn cell(&self, writer: usize) -> &Arc<C> {
        self.cells[writer.min(self.cells.len() - 1)].get_or_init(Arc::default)
    }

    /// Label values, in the family's order.
    #[must_use]
    pub fn labels(&self) -> &[Text] {
        &self.labels
    }

    /// The cells that exist.
    pub fn cells(&self) -> impl Iterator<Item = &C> {
        self.cells.iter().filter_map(|cell| cell.get().map(|cell| &**cell))
    }
}

type ByLabels<C> = HashMap<Box<[Text]>, Arc<Series<C>>>;

/// The series of one family, bounded.
///
/// At the bound, series that no worker holds any more (their rules or instances are gone) are evicted; when there is
/// none, new label values are counted under `other`.
#[derive(Debug)]
pub struct Registry<C> {
    writers: usize,
    limit: usize,
    series: Mutex<ByLabels<C>>,
}

/// The label value that stands for all that found no place.
pub const OTHER: &str = "other";

impl<C: Default> Registry<C> {
    /// An empty one for that many writers; `limit` series at most, plus the one of `other`.
    #[must_use]
    pub fn new(writers: usize, limit: usize) -> Self {
        Self { writers: writers.max(1), limit: limit.max(1), series: Mutex::default() }
    }

    /// The series of these label values.
    pub fn series(&self, labels: &[&str]) -> Arc<Series<C>> {
        let key: Box<[Text]> = labels.iter().map(|label| Text::from(*label)).collect();
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = series.get(&key) {
            return Arc::clone(found);
        }
        if series.len() >= self.limit {
            series.retain(|_, held| Arc::strong_count(held) > 1);
        }
        let key = if series.len() >= self.limit { labels.iter().map(|_| Text::from(OTHER)).collect() } else { key };
        let fresh = series.entry(key).or_insert_with_key(|key| {
            let cells = (0..self.writers).map(|_| OnceLock::new()).collect();
            Arc::new(Series { labels: key.clone(), cells })
        });
        Arc::clone(fresh)
    }

    /// Every series as of now; the lock is held only to copy the list.
    pub fn all(&self) -> Vec<Arc<Series<C>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::cells::CountCell;

    #[test]
    fn at_the_bound_gone_series_make_place_and_held_ones_do_not() {
        let registry = Registry::<CountCell>::new(1, 2);
        let held = registry.series(&["a"]);
        drop(registry.series(&["b"]));
        assert_eq!(&*registry.series(&["c"]).labels()[0], "c", "b is gone, c takes its place");
        assert!(registry.all().iter().any(|s| Arc::ptr_eq(s, &held)));
        let _c = registry.series(&["c"]);
        assert_eq!(&*registry.series(&["d"]).labels()[0], OTHER);
    }
}
