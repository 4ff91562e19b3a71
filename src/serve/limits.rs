//! What the metrics read of limits, when they are scraped.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::engine::policy::Concurrency;
use crate::engine::table::Table;
use crate::observe::clock::Clock;
use crate::observe::limit_book::Book;
use crate::observe::metrics::{Samples, Source};
use crate::observe::names;

/// Figures of limits, budgets and queues.
#[derive(Debug)]
pub struct LimitFigures {
    /// What limits know.
    pub book: Arc<Book>,
    /// The table in force.
    pub table: Arc<ArcSwap<Table>>,
    /// The process's clock.
    pub clock: Clock,
}

impl Source for LimitFigures {
    fn collect(&self, out: &mut Samples) {
        let memory = self.book.memory();
        out.gauge(&names::MEMORY_HELD, &[], memory.held() as f64);
        if memory.limit() > 0 {
            out.gauge(&names::MEMORY_LIMIT, &[], memory.limit() as f64);
        }
        let (served, refused) = self.book.seats().waits();
        out.counter(&names::UPSTREAM_WAITS, &["served"], served);
        out.counter(&names::UPSTREAM_WAITS, &["refused"], refused);
        let table = self.table.load();
        let now = self.clock.now();
        let mut shares = BTreeMap::new();
        for file in &table.router.files {
            shares.entry(&file.service).or_insert(file.policies.retry.budget);
        }
        for (service, budget) in self.book.budgets() {
            if let Some(share) = shares.get(&service) {
                out.gauge(&names::RETRY_BUDGET, &[&service], budget.left(now, *share) as f64);
            }
        }
        let mut evicted = BTreeMap::new();
        for ((service, _, rule, _), limiter) in self.book.limiters() {
            *evicted.entry((service, rule)).or_insert(0) += limiter.evicted();
        }
        for ((service, rule), count) in evicted {
            out.counter(&names::LIMIT_KEYS_EVICTED, &[&service, &rule], count);
        }
        for (service, load) in self.book.loads() {
            if let Some(limit) = load.limit() {
                out.gauge(&names::CONCURRENCY_LIMIT, &[&service, "service"], f64::from(limit));
            }
            let endpoints = table.snapshot.service(&service).map_or(&[][..], |service| &service.endpoints);
            let limit = match load.policy.instance {
                Concurrency::Unlimited => continue,
                Concurrency::Fixed(limit) => limit * endpoints.len() as u32,
                Concurrency::Adaptive => endpoints.iter().map(|endpoint| endpoint.live.adaptive.limit()).sum(),
            };
            out.gauge(&names::CONCURRENCY_LIMIT, &[&service, "instances"], f64::from(limit));
            let waiting: u32 = endpoints.iter().map(|endpoint| endpoint.live.waiting()).sum();
            out.gauge(&names::WAITING, &[&service], f64::from(waiting));
        }
    }
}
