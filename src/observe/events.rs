//! Events: what changed and why, in words with numbers. Kept in a ring, broadcast, and logged once each.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use crate::engine::label::Text;

use super::metrics::Metrics;
use super::names;

/// Events kept for `/v1/events`.
pub const KEPT: usize = 1_000;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An instance was taken out of routing by evidence.
    Ejected,
    /// An ejected instance is allowed a trial request.
    Probing,
    /// An instance is back.
    Readmitted,
    /// A verdict was not honoured because of a pool's cap.
    EjectRefused,
    /// A verdict that is only reported (`enforce: false`).
    EjectReported,
    /// The active check turned to failing.
    CheckFailing,
    /// The active check turned to passing.
    CheckPassing,
    /// An operator took an instance out of new traffic.
    Drained,
    /// An operator ended a drain.
    Undrained,
    /// An instance appeared in the catalog.
    InstanceAdded,
    /// An instance left the catalog.
    InstanceRemoved,
    /// An instance's labels, weight, status or address changed in the catalog.
    InstanceChanged,
    /// A table was published.
    Published,
    /// Rules, certificates, tokens or files were read again and are in force.
    Reloaded,
    /// A reload failed; what was in force stays.
    ReloadFailed,
    /// The guard keeps instances that the catalog no longer names.
    CatalogHeld,
    /// A held removal was accepted, by time, by repetition or by an operator.
    CatalogAccepted,
    /// A source or service has given no good answer for a while.
    CatalogStale,
    /// It answers again.
    CatalogRecovered,
    /// A pool with `panic: any` has nobody routable any more.
    PanicRouting,
    /// Ready for traffic.
    Ready,
    /// No longer ready (draining).
    NotReady,
    /// A log's writer loses lines.
    LogLost,
    /// A fault of ours was caught.
    Fault,
}

impl Kind {
    /// The word in JSON, in metrics and in `?kind=`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Readmitted => "readmitted",
            Self::EjectRefused => "eject_refused",
            Self::EjectReported => "eject_reported",
            Self::CheckFailing => "check_failing",
            Self::CheckPassing => "check_passing",
            Self::Drained => "drained",
            Self::Undrained => "undrained",
            Self::InstanceAdded => "instance_added",
            Self::InstanceRemoved => "instance_removed",
            Self::InstanceChanged => "instance_changed",
            Self::Published => "published",
            Self::Reloaded => "reloaded",
            Self::ReloadFailed => "reload_failed",
            Self::CatalogHeld => "catalog_held",
            Self::CatalogAccepted => "catalog_accepted",
            Self::CatalogStale => "catalog_stale",
            Self::CatalogRecovered => "catalog_recovered",
            Self::PanicRouting => "panic_routing",
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::LogLost => "log_lost",
            Self::Fault => "fault",
        }
    }

    /// How loudly it is logged.
    fn level(self) -> tracing::Level {
        match self {
            Self::Fault => tracing::Level::ERROR,
            Self::Ejected
            | Self::EjectRefused
            | Self::EjectReported
            | Self::CheckFailing
            | Self::ReloadFailed
            | Self::CatalogHeld
            | Self::CatalogStale
            | Self::PanicRouting
            | Self::LogLost => tracing::Level::WARN,
            Self::Probing | Self::Published | Self::InstanceChanged => tracing::Level::DEBUG,
            Self::Readmitted
            | Self::CheckPassing
            | Self::Drained
            | Self::Undrained
            | Self::InstanceAdded
            | Self::InstanceRemoved
            | Self::Reloaded
            | Self::CatalogAccepted
            | Self::CatalogRecovered
            | Self::Ready
            | Self::NotReady => tracing::Level::INFO,
        }
    }
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// 1, 2, 3, … in this process; the id of the server-sent event.
    pub id: u64,
    /// Wall-clock time, RFC 3339 in JSON.
    #[serde(rename = "ts", serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// What happened.
    pub kind: Kind,
    /// To which service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Text>,
    /// To which instance (its shown id).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Text>,
    /// Why, in words with numbers: "6 of the last 7 were 503".
    pub reason: String,
    /// The table generation that it led to or was seen at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// An event to be recorded.
#[derive(Clone, Debug)]
pub struct Report {
    kind: Kind,
    service: Option<Text>,
    instance: Option<Text>,
    reason: String,
    generation: Option<u64>,
}

impl Report {
    /// A kind and its reason.
    #[must_use]
    pub fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, service: None, instance: None, reason: reason.into(), generation: None }
    }

    /// About this service.
    #[must_use]
    pub fn service(mut self, service: &Text) -> Self {
        self.service = Some(Arc::clone(service));
        self
    }

    /// About this instance of it.
    #[must_use]
    pub fn instance(mut self, id: &Text) -> Self {
        self.instance = Some(Arc::clone(id));
        self
    }

    /// With the table's generation.
    #[must_use]
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }
}

/// The ring and its subscribers. Shared by `Arc`; recording takes a short lock, so it is for what is rare.
#[derive(Debug)]
pub struct Events {
    last: AtomicU64,
    ring: Mutex<VecDeque<Arc<Event>>>,
    subscribers: broadcast::Sender<Arc<Event>>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// An empty ring that counts events in these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            last: AtomicU64::new(0),
            ring: Mutex::new(VecDeque::with_capacity(KEPT)),
            subscribers: broadcast::Sender::new(KEPT),
            metrics,
        })
    }

    /// Records, logs, counts and broadcasts one event.
    pub fn record(&self, report: Report) -> Arc<Event> {
        let Report { kind, service, instance, reason, generation } = report;
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.last.fetch_add(1, Relaxed) + 1;
        let event = Arc::new(Event { id, at: SystemTime::now(), kind, service, instance, reason, generation });
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        // Within the lock, so that subscribers see the ring's order. No subscriber is not an error.
        let _ = self.subscribers.send(Arc::clone(&event));
        drop(ring);
        self.metrics.count(&names::EVENTS, &[kind.word()], 1);
        log(&event);
        event
    }

    /// The newest events, oldest first: at most `limit`, with an id above `after`.
    #[must_use]
    pub fn recent(&self, after: u64, limit: usize) -> Vec<Arc<Event>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<_> = ring.iter().rev().take_while(|event| event.id > after).take(limit).cloned().collect();
        wanted.into_iter().rev().collect()
    }

    /// Events from now on. A subscriber that falls behind by [`KEPT`] is told how many it lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.subscribers.subscribe()
    }
}

fn log(event: &Event) {
    let (kind, reason) = (event.kind.word(), event.reason.as_str());
    let service = event.service.as_deref().map(tracing::field::display);
    let instance = event.instance.as_deref().map(tracing::field::display);
    let generation = event.generation;
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(target: "pointsman::events", tracing::Level::$level, event = kind, service, instance, generation, "{reason}")
        };
    }
    match event.kind.level() {
        tracing::Level::ERROR => at!(ERROR),
        tracing::Level::WARN => at!(WARN),
        tracing::Level::INFO => at!(INFO),
        _ => at!(DEBUG),
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(24);
    super::timestamp::write(*at, &mut text);
    serializer.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Arc<Events> {
        Events::new(Metrics::new(1, super::super::metrics::Settings::default()))
    }

    #[test]
    fn the_ring_keeps_the_newest_and_pages_by_id() {
        let events = events();
        for n in 0..KEPT + 10 {
            events.record(Report::new(Kind::Published, format!("n {n}")));
        }
        let all = events.recent(0, usize::MAX);
        assert_eq!((all.len(), all[0].id), (KEPT, 11));
        let newest = events.recent(0, 2);
        assert_eq!(newest.iter().map(|e| e.id).collect::<Vec<_>>(), [KEPT as u64 + 9, KEPT as u64 + 10]);
        assert!(events.recent(KEPT as u64 + 10, 5).is_empty());
    }

    #[test]
    fn a_subscriber_gets_what_is_recorded_after_it_came() {
        let events = events();
        events.record(Report::new(Kind::Ready, "before"));
        let mut subscriber = events.subscribe();
        events.record(
            Report::new(Kind::Ejected, "6 of the last 7 were 503").service(&"web".into()).instance(&"web-1".into()),
        );
        let event = subscriber.try_recv().unwrap();
        let json = serde_json::to_value(&*event).unwrap();
        assert_eq!(
            (&json["kind"], &json["service"], &json["instance"]),
            (&"ejected".into(), &"web".into(), &"web-1".into())
        );
        assert_eq!(json["reason"], "6 of the last 7 were 503");
    }
}
