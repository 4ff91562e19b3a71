//! How workers, checks and operators tell the publisher that an endpoint's live state moved.

use tokio::sync::mpsc;

use crate::engine::health::{Evidence, Kind, Reason, Transition};
use crate::engine::snapshot::Endpoint;

use super::events;

/// An endpoint whose state moved.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whose state; call `live.clear_dirty()` before reading it.
    pub endpoint: Endpoint,
    /// What the winner of the compare-and-swap saw; `None`: something else that the pools depend on (a drain).
    pub transition: Option<Transition>,
}

/// The sending side: one clone a worker. Never waits. It holds every transition that the publisher has not taken, and of
/// other changes one an endpoint, because only who marks a clean endpoint sends: the queue needs no bound of its own,
/// since an endpoint takes a verdict, a trial or an operator's word for each of its transitions.
#[derive(Clone, Debug)]
pub struct Transitions(mpsc::UnboundedSender<Moved>);

impl Transitions {
    /// The handle and the publisher's end.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "verdicts are few, and of other changes only a clean endpoint sends")]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Moved>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Reports the transition that the caller won: each is told of and counted, also one that comes before the last was
    /// published. When the publisher has gone (shutdown) nothing happens.
    pub fn report(&self, endpoint: &Endpoint, transition: Transition) {
        endpoint.live.mark_dirty();
        self.send(endpoint, Some(transition));
    }

    /// Reports that something else changed which the pools depend on.
    pub fn touched(&self, endpoint: &Endpoint) {
        if endpoint.live.mark_dirty() {
            self.send(endpoint, None);
        }
    }

    fn send(&self, endpoint: &Endpoint, transition: Option<Transition>) {
        // The receiver is dropped only at shutdown, when no table is published any more.
        let _ = self.0.send(Moved { endpoint: endpoint.clone(), transition });
    }
}

/// The event that tells people of a transition.
#[must_use]
pub fn event_of(endpoint: &Endpoint, transition: &Transition) -> events::Report {
    let kind = match transition.kind {
        _ if !transition.enforced => events::Kind::EjectReported,
        Kind::Ejected { .. } => events::Kind::Ejected,
        Kind::Probing => events::Kind::Probing,
        Kind::Readmitted => events::Kind::Readmitted,
        Kind::CheckFailing => events::Kind::CheckFailing,
        Kind::CheckPassing => events::Kind::CheckPassing,
    };
    let mut words = words(&transition.reason);
    if let Kind::Ejected { until, times } = transition.kind {
        let seconds = until.since(transition.at) as f64 / 1e3;
        words.push_str(&format!("; out for {seconds:.1} s (step {times})"));
    }
    events::Report::new(kind, words).service(&endpoint.instance.service).instance(&endpoint.instance.id)
}

/// The label under which `EJECTIONS` counts a reason.
#[must_use]
pub fn reason_label(reason: &Reason) -> &'static str {
    match reason {
        Reason::Consecutive5xx { .. } => "consecutive_5xx",
        Reason::ConsecutiveGatewayFailure { .. } => "consecutive_gateway_failure",
        Reason::ConsecutiveLocalOriginFailure { .. } => "consecutive_local_origin_failure",
        Reason::SuccessRate { .. } => "success_rate",
        Reason::FailurePercentage { .. } => "failure_percentage",
        Reason::SuccessRateOutlier { .. } => "success_rate_outlier",
        Reason::Latency { .. } => "latency",
        Reason::ProbeFailed { .. } => "probe_failed",
        Reason::ProbeSucceeded => "probe_succeeded",
        Reason::Check { .. } => "check",
        Reason::Changed => "changed",
        Reason::Operator => "operator",
    }
}

/// A reason in words with its numbers.
#[must_use]
pub fn words(reason: &Reason) -> String {
    match reason {
        Reason::Consecutive5xx { count, last } => {
            format!("{count} failures in a row, the last {}", evidence(*last))
        }
        Reason::ConsecutiveGatewayFailure { count, last } => {
            format!("{count} gateway failures in a row, the last {}", evidence(*last))
        }
        Reason::ConsecutiveLocalOriginFailure { count, last } => {
            format!("{count} connection failures in a row, the last {}", evidence(*last))
        }
        Reason::SuccessRate { failed, requests, last } => {
            format!("{failed} of the last {requests} failed, the last {}", evidence(*last))
        }
        Reason::FailurePercentage { failed, requests, last } => {
            format!("{failed} of the last {requests} failed, the last {}", evidence(*last))
        }
        Reason::SuccessRateOutlier { failed, requests, mean, threshold } => format!(
            "{failed} of the last {requests} failed; its pool succeeds in {}, less than {} is an outlier",
            percent(*mean),
            percent(*threshold)
        ),
        Reason::Latency { answers, p90_us, median_us } => {
            format!("p90 {} of {answers} answers, pool median {}", millis(*p90_us), millis(*median_us))
        }
        Reason::ProbeFailed { last } => format!("the trial request failed: {}", evidence(*last)),
        Reason::ProbeSucceeded => "the trial request succeeded".to_owned(),
        Reason::Check { count, failure: None } => format!("{count} active checks in a row passed"),
        Reason::Check { count, failure: Some(failure) } => format!("{count} active checks in a row failed: {failure}"),
        Reason::Changed => "its address or version changed".to_owned(),
        Reason::Operator => "an operator asked".to_owned(),
    }
}

/// Parts per million as percent.
fn percent(ppm: u32) -> String {
    format!("{:.1} %", f64::from(ppm) / 1e4)
}

/// Microseconds as milliseconds.
fn millis(us: u64) -> String {
    if us < 10_000 { format!("{:.1} ms", us as f64 / 1e3) } else { format!("{} ms", us / 1_000) }
}

fn evidence(evidence: Evidence) -> String {
    match evidence {
        Evidence::Success => "a success".to_owned(),
        Evidence::Status(status) => format!("with {status}"),
        Evidence::Connect => "on connecting".to_owned(),
        Evidence::Reset => "by a broken connection".to_owned(),
        Evidence::Timeout => "by running out of time".to_owned(),
        Evidence::Malformed => "by an answer that is no HTTP".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::instance::{Instance, Status, Weights};
    use crate::engine::snapshot::Live;
    use crate::engine::time::Millis;

    fn endpoint() -> Endpoint {
        let instance = Arc::new(Instance {
            identity: "i".into(),
            id: "web-1".into(),
            service: "web".into(),
            addr: ([127, 0, 0, 1], 1).into(),
            host: "127.0.0.1".into(),
            node: "".into(),
            dc: "".into(),
            labels: crate::engine::label::Labels::default(),
            tags: Arc::from([]),
            weights: Weights::default(),
            status: Status::Passing,
        });
        Endpoint { instance, live: Arc::new(Live::new(1)), graced: false }
    }

    #[test]
    fn a_dirty_endpoint_is_queued_once_until_it_is_taken() {
        let (transitions, mut queue) = Transitions::channel();
        let endpoint = endpoint();
        for _ in 0..3 {
            transitions.touched(&endpoint);
        }
        let moved = queue.try_recv().unwrap();
        assert!(queue.try_recv().is_err(), "one entry an endpoint");
        moved.endpoint.live.clear_dirty();
        transitions.touched(&endpoint);
        assert!(queue.try_recv().is_ok());
    }

    #[test]
    fn every_transition_is_queued_also_of_an_endpoint_that_waits_already() {
        let (transitions, mut queue) = Transitions::channel();
        let endpoint = endpoint();
        let transition = |kind| Transition { kind, reason: Reason::Operator, at: Millis(1), enforced: true };
        transitions.touched(&endpoint);
        transitions.report(&endpoint, transition(Kind::Ejected { until: Millis(9), times: 1 }));
        transitions.report(&endpoint, transition(Kind::Readmitted));
        transitions.touched(&endpoint);
        let kinds: Vec<_> =
            std::iter::from_fn(|| queue.try_recv().ok()).map(|m| m.transition.map(|t| t.kind)).collect();
        assert_eq!(kinds, [None, Some(Kind::Ejected { until: Millis(9), times: 1 }), Some(Kind::Readmitted)]);
    }

    #[test]
    fn an_ejection_is_told_with_its_numbers() {
        let transition = Transition {
            kind: Kind::Ejected { until: Millis(32_500), times: 1 },
            reason: Reason::SuccessRate { failed: 6, requests: 7, last: Evidence::Status(503) },
            at: Millis(2_500),
            enforced: true,
        };
        let metrics = crate::observe::metrics::Metrics::new(1, crate::observe::metrics::Settings::default());
        let event = events::Events::new(metrics).record(event_of(&endpoint(), &transition));
        assert_eq!(event.reason, "6 of the last 7 failed, the last with 503; out for 30.0 s (step 1)");
        assert_eq!((event.kind, event.instance.as_deref()), (events::Kind::Ejected, Some("web-1")));
    }
}
