//! A request that asks how it was decided, with a token that allows it: the trace goes out in a field of the answer.
//! Who sends no token pays for one bit of the survey.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::attempt::Ended;
use super::exchange::Exchange;
use super::worker::Worker;
use crate::debug_token::Keys;
use crate::engine::balance::Picked;
use crate::engine::format::explanation::{Explanation, Kind};
use crate::engine::format::trace_line::{self, Try};
use crate::engine::request::RequestView;
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};

/// The field with the token. It never reaches an instance.
pub const X_DEBUG: HeaderName = HeaderName::from_static("x-pointsman-debug");
/// The field with the trace.
pub const X_TRACE: HeaderName = HeaderName::from_static("x-pointsman-trace");

/// What explains a request: by the table that decides it, with its own luck, at its own moment.
pub type Explainer = fn(&Table, &RequestView<'_>, Draw, Millis) -> Explanation;

/// What traces need; the composition root gives it.
#[derive(Clone)]
pub struct Traces {
    /// Who may ask.
    pub keys: Keys,
    /// What is answered.
    pub explain: Explainer,
}

/// The trace of one request, while it is worked on.
#[derive(Debug)]
pub struct Traced {
    said: Explanation,
    tries: Vec<Try>,
}

/// Explains a request beside its decision if it bears a good token. `now`, table and draw must be the decision's.
pub fn begin(
    worker: &Worker,
    table: &Table,
    exchange: &Exchange,
    request: &RequestView<'_>,
    now: Millis,
) -> Option<Box<Traced>> {
    let traces = worker.traces.as_ref()?;
    let key = traces.keys.load();
    let mut tokens = request.headers.get_all(X_DEBUG).iter();
    let (token, None) = (tokens.next()?, tokens.next()) else { return None };
    let good = key.as_ref()?.verifies(token.as_bytes(), request.host, request.path, SystemTime::now());
    let said = || (traces.explain)(table, request, exchange.draw, now);
    good.then(|| Box::new(Traced { said: said(), tries: Vec::new() }))
}

impl Traced {
    /// Notes a try of the exchange as it ended.
    pub fn tried(&mut self, exchange: &Exchange, picked: Picked, ended: &Ended) {
        let instance = exchange.peer().map(|peer| &peer.instance);
        self.tries.push(Try {
            pool: exchange.route().map_or(String::new(), |route| route.names.pool.to_string()),
            instance: instance.map_or(String::new(), |instance| instance.id.to_string()),
            address: instance.map_or(String::new(), |instance| instance.addr.to_string()),
            level: picked.level,
            probe: picked.probe,
            outcome: match ended {
                Ok(answered) => answered.response.status().as_u16().to_string(),
                Err(failure) => failure.detail.word().to_owned(),
            },
        });
    }

    /// Adds the trace to an answer: what was foretold, corrected by what came of it.
    pub fn add(mut self, headers: &mut HeaderMap, exchange: &Exchange) {
        let result = &mut self.said.result;
        if let Some(last) = self.tries.last() {
            let foretold = result.instance.as_deref() == Some(&*self.tries[0].instance);
            (result.outcome, result.pool) = (Kind::Routed, Some(last.pool.clone()));
            (result.instance, result.address) = (Some(last.instance.clone()), Some(last.address.clone()));
            result.level = Some(last.level);
            if !foretold {
                // A probe, or load that moved between the two: the note is of a pick that was not made.
                self.said.pick = None;
            }
        }
        result.status = Some(exchange.status);
        if let Some(detail) = exchange.detail {
            result.detail = Some(detail.word().into());
        }
        if let Ok(value) = HeaderValue::try_from(trace_line::write(&self.said, &self.tries)) {
            headers.insert(X_TRACE, value);
        }
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").field("keys", &self.keys).finish_non_exhaustive()
    }
}
