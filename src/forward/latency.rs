//! What an answer says about its instance's latency, for pools that balance by it.

use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::attempt::Answered;
use super::exchange::Exchange;
use super::retry::Failure;
use crate::engine::health::Evidence;

/// What a failure is charged as, in microseconds: fast errors must not attract traffic.
const CHARGE: u64 = 5_000_000;

/// The most that an instance asks for with `Retry-After`, in seconds.
const MOST_ASKED: u64 = 300;

/// Feeds the moving latency of the last try's endpoint with the time to the answer's head, or with the charge of a
/// failure. Does nothing where no pool of the file balances by latency, and for what says nothing about the instance.
pub fn observe(exchange: &Exchange, result: &Result<Answered, Failure>, evidence: Option<Evidence>) {
    if !exchange.route().is_some_and(|route| route.file.watches_latency) {
        return;
    }
    let (Some(evidence), Some(peer)) = (evidence, exchange.peer()) else { return };
    let micros = match (evidence, result) {
        (Evidence::Success, _) => exchange.first_byte_us,
        (_, Ok(answered)) => Some(charge(answered.response.headers())),
        (_, Err(_)) => Some(CHARGE),
    };
    if let Some(micros) = micros {
        peer.live.observe_latency(micros, exchange.connection().clock.now());
    }
}

/// Five seconds, or as long as the instance asks to be left alone.
fn charge(headers: &HeaderMap) -> u64 {
    let asked =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
    asked.map_or(CHARGE, |seconds: u64| (seconds.min(MOST_ASKED) * 1_000_000).max(CHARGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_failure_is_charged_five_seconds_or_what_it_asks_for() {
        let asked = |value: &'static str| {
            charge(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))])) / 1_000_000
        };
        assert_eq!(charge(&HeaderMap::new()), CHARGE);
        assert_eq!(["1", " 60 ", "100000", "Wed, 21 Oct 2026 07:28:00 GMT"].map(asked), [5, 60, 300, 5]);
    }
}
