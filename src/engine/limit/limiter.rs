//! A rule's or a file's `limit`: a rate, for all or by key, and requests at once.

use std::sync::Arc;

use super::keyed::Keyed;
use super::places::{Place, Places};
use super::rate::{Bucket, Rate, Within};
use crate::engine::rules::Limit;

/// The live side of one `limit`, shared by all workers.
#[derive(Debug)]
pub struct Limiter {
    rate: Option<Rate>,
    concurrency: u32,
    buckets: Buckets,
    places: Arc<Places>,
}

#[derive(Debug)]
enum Buckets {
    One(Bucket),
    ByKey(Box<Keyed>),
}

/// Over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Of the rate: there is a token again in so many nanoseconds.
    Rate(u64),
    /// Of requests at once.
    Concurrency,
}

impl Limiter {
    /// An unused one.
    #[must_use]
    pub fn new(limit: &Limit) -> Self {
        let buckets = match limit.key {
            Some(_) if limit.rate_milli > 0 => Buckets::ByKey(Box::default()),
            _ => Buckets::One(Bucket::default()),
        };
        Self {
            rate: (limit.rate_milli > 0).then(|| Rate::new(limit.rate_milli, u64::from(limit.burst))),
            concurrency: limit.concurrency,
            buckets,
            places: Arc::default(),
        }
    }

    /// Lets one request in. `key`: the seeded hash of its key; those without one share a bucket. `now`: nanoseconds. The
    /// place, if there is a limit to them, is held for as long as the request goes on.
    ///
    /// # Errors
    /// Over a limit. A token is taken only when there is a place.
    pub fn enter(&self, key: u64, now: u64) -> Result<(Option<Place>, Option<Within>), Over> {
        let place = match self.concurrency {
            0 => None,
            most => Some(self.places.take(most).ok_or(Over::Concurrency)?),
        };
        let Some(rate) = self.rate else { return Ok((place, None)) };
        let within = match &self.buckets {
            Buckets::One(bucket) => bucket.take(rate, now),
            Buckets::ByKey(keyed) => keyed.take(key, rate, now),
        };
        within.map(|within| (place, Some(within))).map_err(Over::Rate)
    }

    /// The rate.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Requests that go on, and the most of them; 0: no limit.
    #[must_use]
    pub fn places(&self) -> (u32, u32) {
        (self.places.held(), self.concurrency)
    }

    /// Tokens left for a key at `now`; `None`: there is no rate. Asking takes nothing.
    #[must_use]
    pub fn left(&self, key: u64, now: u64) -> Option<u64> {
        let rate = self.rate?;
        Some(match &self.buckets {
            Buckets::One(bucket) => rate.left(bucket.tat(), now),
            Buckets::ByKey(keyed) => keyed.left(key, rate, now),
        })
    }

    /// Keys whose bucket had to go before it was full again.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        match &self.buckets {
            Buckets::One(_) => 0,
            Buckets::ByKey(keyed) => keyed.evicted(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::expr::ast::Field;
    use crate::engine::limit::rate::SECOND;

    #[test]
    fn a_request_that_finds_no_place_takes_no_token() {
        let limiter = Limiter::new(&Limit { concurrency: 1, rate_milli: 1_000, burst: 2, key: None });
        let held = limiter.enter(0, SECOND).unwrap();
        assert_eq!(limiter.enter(0, SECOND).unwrap_err(), Over::Concurrency);
        assert_eq!((limiter.left(0, SECOND), limiter.places()), (Some(1), (1, 1)));
        drop(held);
        assert!(limiter.enter(0, SECOND).is_ok());
        assert_eq!(limiter.enter(0, SECOND).unwrap_err(), Over::Rate(SECOND));
    }

    #[test]
    fn keys_do_not_spend_each_others_tokens() {
        let limiter =
            Limiter::new(&Limit { rate_milli: 1_000, burst: 1, key: Some(Field::ClientIp), ..Limit::default() });
        for key in [1 << 40, 2 << 40, 0] {
            assert!(limiter.enter(key, SECOND).is_ok());
            assert!(limiter.enter(key, SECOND).is_err());
        }
        assert_eq!((limiter.left(1 << 40, SECOND), limiter.left(3 << 40, SECOND)), (Some(0), Some(1)));
    }
}
