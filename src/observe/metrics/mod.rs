//! Metrics: per-worker shards of plain cells, summed when scraped.
//!
//! A worker holds a [`WorkerMetrics`] and, in its view of the table, a [`SeriesCache`] that turns small integers
//! (file, rule, slot) into cells; counting is then one hash lookup and a few plain stores. Everybody else counts
//! through [`Metrics::count`]. [`Metrics::render`] gives the text.

pub mod cells;
mod encode;
mod registry;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::instance::Instance;
use crate::engine::label::Text;

use super::names::{self, Family};
use cells::{CountCell, RouteCells, WorkerCells};
pub use encode::{CONTENT_TYPE, Samples, Source};
pub use registry::OTHER;
use registry::{Registry, Series};
pub use worker::{Counter, Done, Names, RequestKey, RouteKey, SeriesCache, WorkerMetrics};

/// Bounds on what labels may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Distinct values of one catalog label (version, env, region) within one service; further ones count under
    /// `other`. Default 200.
    pub label_values: usize,
    /// Series of one family. Default 20,000.
    pub series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { label_values: 200, series: 20_000 }
    }
}

/// By family and label values.
type Gauges = HashMap<(&'static str, Box<[Text]>), (&'static Family, f64)>;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    settings: Settings,
    started: Instant,
    workers: Box<[Arc<WorkerCells>]>,
    /// By family, the counters; the last writer is the control plane.
    counters: Mutex<HashMap<&'static str, Arc<Registry<CountCell>>>>,
    routes: Registry<RouteCells>,
    /// Histograms of the control plane.
    timings: Registry<RouteCells>,
    gauges: Mutex<Gauges>,
    values: Mutex<HashMap<(&'static str, Text), HashSet<Text>>>,
    sources: Mutex<Vec<Arc<dyn Source>>>,
}

impl Metrics {
    /// Metrics for that many workers.
    #[must_use]
    pub fn new(workers: usize, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            started: Instant::now(),
            workers: (0..workers.max(1)).map(|_| Arc::default()).collect(),
            counters: Mutex::default(),
            routes: Registry::new(workers.max(1), settings.series),
            timings: Registry::new(1, settings.series),
            gauges: Mutex::default(),
            values: Mutex::default(),
            sources: Mutex::default(),
        })
    }

    /// The handle of one worker (0-based). One thread at a time may count through one index.
    #[must_use]
    pub fn worker(self: &Arc<Self>, index: usize) -> WorkerMetrics {
        WorkerMetrics::new(Arc::clone(self), index)
    }

    /// Counts from the control plane. `labels` are values in the family's order.
    pub fn count(&self, family: &'static Family, labels: &[&str], n: u64) {
        let series = self.counter(family).series(labels);
        series.cell(self.workers.len()).0.add_shared(n);
    }

    /// Sets a gauge from the control plane.
    pub fn gauge(&self, family: &'static Family, labels: &[&str], value: f64) {
        let key = (family.name, labels.iter().map(|label| Text::from(*label)).collect());
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        if gauges.len() < self.settings.series || gauges.contains_key(&key) {
            gauges.insert(key, (family, value));
        }
    }

    /// Counts one duration from the control plane.
    pub fn time(&self, family: &'static Family, label: &str, took: Duration) {
        debug_assert_eq!(family.labels.len(), 1, "timings have one label");
        let series = self.timings.series(&[family.name, label]);
        series.cell(0).duration.observe_shared(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds figures that are read when scraped (catalog ages, pool counts).
    pub fn add_source(&self, source: Arc<dyn Source>) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// Figures of one worker, for the placement of connections and for tests.
    #[must_use]
    pub fn worker_cells(&self, index: usize) -> &WorkerCells {
        &self.workers[index.min(self.workers.len() - 1)]
    }

    /// Requests in flight over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.workers.iter().fold(0u64, |sum, cells| sum.wrapping_add(cells.in_flight.value()))
    }

    /// Everything as OpenMetrics text, `# EOF` included; its type is [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        encode::render(self.sample())
    }

    fn sample(&self) -> Samples {
        let mut out = Samples::default();
        self.sample_workers(&mut out);
        self.sample_routes(&mut out);
        let counters: Vec<_> = {
            let held = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
            held.iter().map(|(name, registry)| (*name, Arc::clone(registry))).collect()
        };
        for (name, registry) in counters {
            let Some(family) = names::ALL.iter().find(|f| f.name == name) else { continue };
            for series in registry.all() {
                let total = series.cells().fold(0u64, |sum, cell| sum.wrapping_add(cell.0.value()));
                out.counter(family, &texts(series.labels()), total);
            }
        }
        for ((_, labels), (family, value)) in self.gauges.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            out.gauge(family, &texts(labels), *value);
        }
        out.gauge(&names::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        out.gauge(&names::UPTIME, &[], self.started.elapsed().as_secs_f64());
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for source in sources {
            source.collect(&mut out);
        }
        out
    }

    fn sample_workers(&self, out: &mut Samples) {
        for (index, cells) in self.workers.iter().enumerate() {
            let worker = index.to_string();
            let labels = &[worker.as_str()];
            for (family, cell) in [
                (&names::IN_FLIGHT, &cells.in_flight),
                (&names::TUNNELS, &cells.tunnels),
                (&names::CONNECTIONS, &cells.connections),
                (&names::UPSTREAM_CONNECTIONS, &cells.upstream_connections),
            ] {
                out.gauge(family, labels, cell.value().cast_signed() as f64);
            }
            for (family, cell) in [
                (&names::ACCEPTED, &cells.accepted),
                (&names::HANDED_OVER, &cells.handed_over),
                (&names::H2_CONNECTIONS, &cells.h2_connections),
                (&names::H2_STREAMS, &cells.h2_streams),
                (&names::H2_RESETS, &cells.h2_resets),
                (&names::H2_GOAWAYS, &cells.h2_goaways),
                (&names::UPSTREAM_OPENED, &cells.upstream_opened),
                (&names::UPSTREAM_REUSED, &cells.upstream_reused),
                (&names::UPSTREAM_H2_GOAWAYS, &cells.upstream_h2_goaways),
                (&names::UPSTREAM_H2_RESETS, &cells.upstream_h2_resets),
            ] {
                out.counter(family, labels, cell.value());
            }
        }
    }

    fn sample_routes(&self, out: &mut Samples) {
        for series in self.routes.all() {
            let labels = texts(series.labels());
            let (mut duration, mut first_byte) = Default::default();
            let (mut bytes_in, mut bytes_out) = (0u64, 0u64);
            for cells in series.cells() {
                cells.duration.add_to(&mut duration);
                cells.first_byte.add_to(&mut first_byte);
                bytes_in = bytes_in.wrapping_add(cells.bytes_in.value());
                bytes_out = bytes_out.wrapping_add(cells.bytes_out.value());
            }
            out.histogram(&names::REQUEST_DURATION, &labels, duration);
            out.histogram(&names::FIRST_BYTE, &labels, first_byte);
            out.counter(&names::REQUEST_BYTES, &labels, bytes_in);
            out.counter(&names::RESPONSE_BYTES, &labels, bytes_out);
        }
        for series in self.timings.all() {
            let [name, label] = series.labels() else { continue };
            let Some(family) = names::ALL.iter().find(|f| f.name == &**name) else { continue };
            let mut sum = Default::default();
            series.cells().for_each(|cells| cells.duration.add_to(&mut sum));
            out.histogram(family, &[label], sum);
        }
        out.gauge(&names::SERIES, &[], self.counter(&names::REQUESTS).all().len() as f64);
    }

    fn counter(&self, family: &'static Family) -> Arc<Registry<CountCell>> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Registry::new(self.workers.len() + 1, self.settings.series));
        Arc::clone(counters.entry(family.name).or_insert_with(fresh))
    }

    /// The request series of these names; catalog labels are capped per service.
    fn request_series(&self, names: &Names<'_>, status: &str) -> Arc<Series<CountCell>> {
        let of = |key| names.instance.and_then(|i: &Arc<Instance>| i.labels.value(key)).unwrap_or("");
        let (version, env, region) = (of("version"), of("env"), of("region"));
        let version = self.capped("version", names.service, version);
        let env = self.capped("env", names.service, env);
        let region = self.capped("region", names.service, region);
        let labels = [names.service, names.rule, names.pool, version, env, region, status];
        self.counter(&names::REQUESTS).series(&labels)
    }

    /// The value, or `other` when the service has used up its distinct values of this label.
    fn capped<'v>(&self, label: &'static str, service: &str, value: &'v str) -> &'v str {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = values.entry((label, Text::from(service))).or_default();
        if !seen.contains(value) {
            if seen.len() >= self.settings.label_values {
                return OTHER;
            }
            seen.insert(Text::from(value));
        }
        value
    }
}

fn texts(labels: &[Text]) -> Vec<&str> {
    labels.iter().map(|label| &**label).collect()
}

#[cfg(test)]
mod tests;
