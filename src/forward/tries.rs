//! Whom to try, and whom next: the order of resort for the first try, the retry's walk for the others.

use http::StatusCode;

use super::answer::Refusal;
use super::view::View;
use crate::engine::balance::{Picked, Tried, pick, pick_any};
use crate::engine::route::{Choice, Decision, FileIdx, Outcome, Step, after_empty, next_choice};
use crate::engine::time::{Draw, Millis};
use crate::engine::trace::NoTrace;

/// The tries of one request that goes to a pool.
#[derive(Debug)]
pub struct Tries<'t> {
    view: &'t View,
    file: FileIdx,
    decision: &'t Decision,
    /// The pool of the last pick.
    pub choice: Choice,
    tried: Tried,
    draw: Draw,
}

impl<'t> Tries<'t> {
    /// Before the first try.
    #[must_use]
    pub fn new(view: &'t View, file: FileIdx, decision: &'t Decision, choice: Choice, draw: Draw) -> Self {
        Self { view, file, decision, choice, tried: Tried::default(), draw }
    }

    /// The first endpoint. A pool that proves empty hands on to the next step of the order of resort.
    pub fn first(&mut self, now: Millis, may_probe: bool) -> Result<Picked, Refusal> {
        // Each turn takes a later step, so this ends; the bound is for a table that would break that promise.
        for _ in 0..64 {
            if let Some(picked) = self.pick(self.choice, now, may_probe) {
                return Ok(picked);
            }
            match after_empty(&*self.view.table, self.decision, self.choice) {
                Outcome::Pool(choice) => self.choice = choice,
                Outcome::Refuse { status, detail } => return Err(refusal(status, detail.into())),
                Outcome::Redirect | Outcome::Respond => break,
            }
        }
        Err(super::error::Detail::NoRoutableInstance.into())
    }

    /// Another endpoint: of the same pool, or for the last permitted try of the next pool where there is one.
    pub fn next(&mut self, now: Millis, last: bool) -> Option<Picked> {
        let onward = || next_choice(&*self.view.table, self.decision, self.choice);
        if !last && let Some(picked) = self.pick(self.choice, now, false) {
            return Some(picked);
        }
        let mut at = onward();
        while let Some(choice) = at {
            if let Some(picked) = self.pick(choice, now, false) {
                self.choice = choice;
                return Some(picked);
            }
            at = next_choice(&*self.view.table, self.decision, choice);
        }
        if last { self.pick(self.choice, now, false) } else { None }
    }

    /// Notes that an endpoint gets a try.
    pub fn note(&mut self, picked: Picked) {
        self.tried.add(picked.endpoint);
    }

    fn pick(&self, choice: Choice, now: Millis, may_probe: bool) -> Option<Picked> {
        let pool = self.view.table.pool(self.file, choice.slot);
        let endpoints = self.view.table.endpoints(self.file);
        let draw = self.draw.fork(Draw::PICK + self.tried.len() as u64);
        if choice.step == Step::Panic {
            return pick_any(pool, endpoints, draw, &self.tried, &mut NoTrace);
        }
        pick(pool, endpoints, now, draw, &self.tried, may_probe, &mut NoTrace)
    }
}

/// A refusal with the status that the rules ask for.
#[must_use]
pub fn refusal(status: u16, detail: super::error::Detail) -> Refusal {
    Refusal { status: StatusCode::from_u16(status).unwrap_or(detail.status()), detail }
}
