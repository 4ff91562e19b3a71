//! What a pick is asked with, and what it answers.

use smallvec::SmallVec;

use super::Memory;
use crate::engine::snapshot::EndpointIdx;
use crate::engine::time::{Draw, Millis};

/// One request's pick.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The moment.
    pub now: Millis,
    /// The luck of this try.
    pub draw: Draw,
    /// Who was tried already.
    pub tried: &'a Tried,
    /// The request may be retried, so it may prove an ejected endpoint.
    pub may_probe: bool,
    /// The hash of the key that the pool's `hash(KEY)` names; `None`: the request does not have it.
    pub key: Option<u64>,
    /// The worker's memory. `None` (a dry run): `round_robin` draws by weight, which gives the same shares, and the mean
    /// load of a hashed level is counted anew.
    pub memory: Option<&'a Memory>,
    /// Endpoints whose last answer was a failure are passed over: what a retry wants, while there are others.
    pub proven: bool,
    /// Endpoints of this level come last: what the last try wants, after one of the level failed.
    pub elsewhere: Option<u8>,
}

impl<'a> Asking<'a> {
    /// A pick without probing, key and memory.
    #[must_use]
    pub fn new(now: Millis, draw: Draw, tried: &'a Tried) -> Self {
        Self { now, draw, tried, may_probe: false, key: None, memory: None, proven: false, elsewhere: None }
    }
}

/// Endpoints that this request tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried(SmallVec<[EndpointIdx; 4]>);

impl Tried {
    /// Adds one.
    pub fn add(&mut self, endpoint: EndpointIdx) {
        self.0.push(endpoint);
    }

    /// Whether it was tried.
    #[must_use]
    pub fn contains(&self, endpoint: EndpointIdx) -> bool {
        self.0.contains(&endpoint)
    }

    /// How many were tried.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the first try.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whom a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Index in the pool's service.
    pub endpoint: EndpointIdx,
    /// Rank of the locality level it came from; 0 is nearest.
    pub level: u8,
    /// It took the permit to prove an ejected endpoint.
    pub probe: bool,
    /// Taken whatever its health.
    pub panic: bool,
    /// Ejected, and its time not over: a retry found nobody else.
    pub last_resort: bool,
}

/// Why an endpoint that was drawn did not get the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOver {
    /// The request tried it already.
    Tried,
    /// Not routable any more.
    NotRoutable,
    /// Its last answer was a failure.
    Failing,
    /// Of a key's endpoints: over 125 % of the mean load.
    Overloaded,
    /// It starts slowly and was kept with this chance only, in parts per million.
    SlowStart(u32),
}
