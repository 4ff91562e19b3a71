//! Sampled figures to text, with `prometheus-client`'s encoder, which escapes label values.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::observe::names::{Family, Kind};

use super::cells::{BOUNDS_US, HistogramSum};

/// The type of the text that is rendered.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Figures that are read at each scrape rather than kept.
pub trait Source: Send + Sync + fmt::Debug {
    /// Adds the figures as of now. Must not block: it runs in the scrape.
    fn collect(&self, out: &mut Samples);
}

/// One scrape's figures, by family.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<&'static str, (&'static Family, Vec<Row>)>);

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Row {
    labels: Labels,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Box<HistogramSum>),
}

impl Samples {
    /// Adds a counter; `labels` are values in the family's order.
    pub fn counter(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.push(family, Kind::Counter, labels, Value::Counter(value));
    }

    /// Adds a gauge.
    pub fn gauge(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        self.push(family, Kind::Gauge, labels, Value::Gauge(value));
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, family: &'static Family, labels: &[&str], sum: HistogramSum) {
        self.push(family, Kind::Histogram, labels, Value::Histogram(Box::new(sum)));
    }

    fn push(&mut self, family: &'static Family, kind: Kind, labels: &[&str], value: Value) {
        debug_assert_eq!(family.kind, kind, "{}", family.name);
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        let labels = family.labels.iter().copied().zip(labels.iter().map(|l| (*l).to_owned())).collect();
        self.0.entry(family.name).or_insert_with(|| (family, Vec::new())).1.push(Row { labels, value });
    }
}

/// The text of a scrape. Rows are sorted, so that two scrapes can be compared.
pub(super) fn render(mut samples: Samples) -> String {
    for (_, rows) in samples.0.values_mut() {
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
    let mut text = String::with_capacity(16 * 1024);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(samples));
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        tracing::error!("the metrics could not be encoded");
    }
    text
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, rows) in self.0.values() {
            let (name, kind) = match family.kind {
                // The encoder appends the suffix itself.
                Kind::Counter => (family.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge => (family.name, MetricType::Gauge),
                Kind::Histogram => (family.name, MetricType::Histogram),
            };
            let mut encoder = encoder.encode_descriptor(name, family.help, None, kind)?;
            for row in rows {
                if row.labels.is_empty() {
                    row.value.encode(&mut encoder)?;
                } else {
                    row.value.encode(&mut encoder.encode_family(&row.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Histogram(sum) => {
                let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(sum.buckets).collect();
                let count = sum.buckets.iter().sum();
                encoder.encode_histogram::<NoLabelSet>(sum.sum_us as f64 / 1e6, count, &buckets, None)
            }
        }
    }
}
