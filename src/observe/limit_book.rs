//! What limits know, kept over reloads: the same limit of the same rule is the same buckets and places, whoever asks.
//!
//! Workers ask once a router, never in a request. Nothing is kept that no worker holds.

use std::collections::HashMap;
use std::hash::{Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::engine::label::Text;
use crate::engine::limit::{Budget, Limiter, Load, Places};
use crate::engine::policy::Overload;
use crate::engine::rules::Limit;
use crate::observe::memory::Memory;
use crate::observe::seats::Seats;

/// A rule's limit by where it stands and what it says: a changed one begins anew.
pub type LimitKey = (Text, Text, Text, Limit);

/// The book.
#[derive(Debug)]
pub struct Book {
    workers: usize,
    seeds: RandomState,
    budgets: Shelf<Text, Budget>,
    limiters: Shelf<LimitKey, Limiter>,
    loads: Shelf<(Text, Overload), Load>,
    process: Arc<Places>,
    memory: Arc<Memory>,
    seats: Arc<Seats>,
}

/// What a worker needs of the book: itself, and which worker it is.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The book.
    pub book: Arc<Book>,
    /// 0-based.
    pub worker: usize,
}

impl Book {
    /// An empty one for so many workers. `seeds` hash the keys of clients, so they must come from the system's luck.
    #[must_use]
    pub fn new(workers: usize, seeds: RandomState) -> Self {
        let (budgets, limiters, loads) = (Shelf::default(), Shelf::default(), Shelf::default());
        let (process, memory, seats) = (Arc::default(), Arc::default(), Arc::default());
        Self { workers, seeds, budgets, limiters, loads, process, memory, seats }
    }

    /// A service's retry budget.
    #[must_use]
    pub fn budget(&self, service: &Text) -> Arc<Budget> {
        self.budgets.of(Arc::clone(service), |_| Budget::new(self.workers))
    }

    /// The limiter of a `limit` that stands in this file, in this rule (empty: at the file's top).
    #[must_use]
    pub fn limiter(&self, service: &Text, file: &str, rule: &Text, limit: &Limit) -> Arc<Limiter> {
        let key = (Arc::clone(service), file.into(), Arc::clone(rule), limit.clone());
        self.limiters.of(key, |(.., limit)| Limiter::new(limit))
    }

    /// What a service carries.
    #[must_use]
    pub fn load(&self, service: &Text, policy: Overload) -> Arc<Load> {
        self.loads.of((Arc::clone(service), policy), |(_, policy)| Load::new(*policy))
    }

    /// The places of the whole process.
    #[must_use]
    pub fn process(&self) -> &Arc<Places> {
        &self.process
    }

    /// What clients hold in buffers.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Where workers bound connections to instances together.
    #[must_use]
    pub fn seats(&self) -> &Arc<Seats> {
        &self.seats
    }

    /// Seeds for hashing clients' keys.
    #[must_use]
    pub fn seeds(&self) -> &RandomState {
        &self.seeds
    }

    /// The budgets in use, by service.
    #[must_use]
    pub fn budgets(&self) -> Vec<(Text, Arc<Budget>)> {
        self.budgets.all()
    }

    /// The limiters in use.
    #[must_use]
    pub fn limiters(&self) -> Vec<(LimitKey, Arc<Limiter>)> {
        self.limiters.all()
    }

    /// The services' loads in use.
    #[must_use]
    pub fn loads(&self) -> Vec<(Text, Arc<Load>)> {
        self.loads.all().into_iter().map(|((service, _), load)| (service, load)).collect()
    }
}

/// Values by key, for as long as somebody holds them.
#[derive(Debug)]
struct Shelf<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V> Shelf<K, V> {
    fn of(&self, key: K, fresh: impl FnOnce(&K) -> V) -> Arc<V> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        held.retain(|_, value| value.strong_count() > 0);
        let value = Arc::new(fresh(&key));
        held.insert(key, Arc::downgrade(&value));
        value
    }

    fn all(&self) -> Vec<(K, Arc<V>)> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter_map(|(key, value)| Some((key.clone(), value.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limit::rate::SECOND;

    #[test]
    fn the_same_limit_is_the_same_and_a_changed_one_is_new() {
        let book = Book::new(1, RandomState::new());
        let (service, rule) = (Text::from("web"), Text::from("all"));
        let limit = Limit { rate_milli: 1_000, burst: 1, ..Limit::default() };
        let first = book.limiter(&service, "web.yaml", &rule, &limit);
        assert!(first.enter(0, SECOND).is_ok());
        let reloaded = book.limiter(&service, "web.yaml", &rule, &limit);
        assert!(reloaded.enter(0, SECOND).is_err(), "a reload gives nobody new tokens");
        let changed = book.limiter(&service, "web.yaml", &rule, &Limit { burst: 2, ..limit });
        assert!(changed.enter(0, SECOND).is_ok());
        assert_eq!(book.limiters().len(), 2);
        drop((first, reloaded, changed));
        assert!(book.limiters().is_empty());
    }
}
