use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::engine::instance::{Status, Weights};

fn instance(version: &str) -> Arc<Instance> {
    Arc::new(Instance {
        identity: "i".into(),
        id: "web-1".into(),
        service: "web".into(),
        addr: ([127, 0, 0, 1], 1).into(),
        host: "127.0.0.1".into(),
        node: "".into(),
        dc: "".into(),
        labels: [("version", version), ("region", "eu")].into_iter().collect(),
        tags: Arc::from([]),
        weights: Weights::default(),
        status: Status::Passing,
    })
}

fn names<'n>(instance: &'n Arc<Instance>) -> Names<'n> {
    Names { service: "web", rule: "ramp", pool: "gray", instance: Some(instance) }
}

/// `name{labels}` → value, for every sample line.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn workers_counts_are_summed_and_carry_the_instances_labels() {
    let metrics = Metrics::new(2, Settings::default());
    let instance = instance("1.3");
    let route = RouteKey::new(Some(0), Some(1), Some(2));
    for worker in 0..2 {
        let worker = Rc::new(metrics.worker(worker));
        worker.cells().in_flight.add(3);
        worker.cells().in_flight.sub(1);
        let cache = SeriesCache::new(&worker);
        let done = Done { duration_us: 1_500, first_byte_us: Some(900), bytes_in: 1, bytes_out: 10 };
        for status in [200, 204, 503] {
            cache.request(RequestKey::new(route, Some(&instance), status), || names(&instance), &done);
        }
        cache.count(&names::RETRIES, route, "503", || names(&instance));
        cache.count(&names::SPLIT_REROUTED, route, "", || names(&instance));
        worker.word(&names::REFUSALS, "head_too_large");
    }
    metrics.count(&names::EJECTIONS, &["web", "consecutive_5xx"], 1);
    metrics.gauge(&names::TABLE_GENERATION, &[], 7.0);
    metrics.time(&names::PUBLISH_SECONDS, "catalog", Duration::from_micros(700));

    let figures = parse(&metrics.render());
    let labels = r#"service="web",rule="ramp",pool="gray""#;
    let requests = |class: &str| {
        figures[&format!(r#"pointsman_requests_total{{{labels},version="1.3",env="",region="eu",status="{class}"}}"#)]
    };
    assert_eq!((requests("2xx"), requests("5xx")), (4.0, 2.0));
    assert_eq!(figures[&format!("pointsman_request_duration_seconds_count{{{labels}}}")], 6.0);
    assert_eq!(figures[&format!(r#"pointsman_request_duration_seconds_bucket{{le="0.0025",{labels}}}"#)], 6.0);
    assert_eq!(figures[&format!(r#"pointsman_request_duration_seconds_bucket{{le="0.001",{labels}}}"#)], 0.0);
    assert_eq!(figures[&format!("pointsman_response_bytes_total{{{labels}}}")], 60.0);
    assert_eq!(figures[r#"pointsman_retries_total{service="web",rule="ramp",reason="503"}"#], 2.0);
    assert_eq!(figures[r#"pointsman_split_rerouted_total{service="web",rule="ramp"}"#], 2.0);
    assert_eq!(figures[r#"pointsman_refusals_total{reason="head_too_large"}"#], 2.0);
    assert_eq!(figures[r#"pointsman_in_flight{worker="1"}"#], 2.0);
    assert_eq!(figures[r#"pointsman_ejections_total{service="web",reason="consecutive_5xx"}"#], 1.0);
    assert_eq!(figures["pointsman_table_generation"], 7.0, "{figures:?}");
    assert_eq!(figures[r#"pointsman_publish_seconds_bucket{le="0.001",cause="catalog"}"#], 1.0);
}

#[test]
fn catalog_labels_cannot_explode_the_series_nor_break_the_text() {
    let metrics = Metrics::new(1, Settings { label_values: 2, series: 100 });
    let cache = SeriesCache::new(&Rc::new(metrics.worker(0)));
    let hostile = "1\"\\\n} 9";
    for version in [hostile, "b", "c", "d"] {
        let instance = instance(version);
        let key = RequestKey::new(RouteKey::new(Some(0), None, Some(0)), Some(&instance), 200);
        cache.request(key, || names(&instance), &Done::default());
    }
    let figures = parse(&metrics.render());
    let requests: Vec<_> = figures.iter().filter(|(name, _)| name.starts_with("pointsman_requests_total")).collect();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(requests.iter().any(|(name, n)| name.contains(r#"version="1\"\\\n} 9""#) && **n == 1.0), "{requests:?}");
    assert!(requests.iter().any(|(name, n)| name.contains(r#"version="other""#) && **n == 2.0), "{requests:?}");
}

#[test]
fn a_known_series_is_counted_without_asking_for_names() {
    let metrics = Metrics::new(1, Settings::default());
    let cache = SeriesCache::new(&Rc::new(metrics.worker(0)));
    let instance = instance("1.3");
    let key = RequestKey::new(RouteKey::new(Some(0), Some(0), Some(0)), Some(&instance), 200);
    cache.request(key, || names(&instance), &Done::default());
    cache.request(key, || unreachable!("the series is known"), &Done::default());
    let figures = parse(&metrics.render());
    assert!(figures.iter().any(|(name, n)| name.starts_with("pointsman_requests_total") && *n == 2.0));
}

#[derive(Debug)]
struct Age;

impl Source for Age {
    fn collect(&self, out: &mut Samples) {
        out.gauge(&names::CATALOG_AGE, &["consul", "web"], 1.5);
    }
}

#[test]
fn sources_are_read_when_scraped() {
    let metrics = Metrics::new(1, Settings::default());
    metrics.add_source(Arc::new(Age));
    assert_eq!(parse(&metrics.render())[r#"pointsman_catalog_age_seconds{source="consul",service="web"}"#], 1.5);
}
