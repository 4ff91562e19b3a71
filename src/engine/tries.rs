//! Whom to try, and whom next: the order of resort for the first try, the retry's walk for the others.

use super::balance::{Asking, Memory, Picked, Tried, last_resort, pick, pick_any, probe, probe_open};
use super::route::{Choice, Decision, Detail, FileIdx, Outcome, PoolSlot, Step, after_empty, next_choice, reached};
use super::snapshot::EndpointIdx;
use super::table::Table;
use super::time::{Draw, Millis};
use super::trace::NoTrace;

/// The tries of one request that goes to a pool.
#[derive(Debug)]
pub struct Tries<'t> {
    table: &'t Table,
    file: FileIdx,
    decision: &'t Decision,
    /// Where the order of resort stands; `None`: nobody is routable, only a probe is possible.
    choice: Option<Choice>,
    /// The pool of the last pick, as compiled.
    pub pool: PoolSlot,
    tried: Tried,
    /// The locality level of the last try.
    level: Option<u8>,
    draw: Draw,
    memory: Option<&'t Memory>,
}

impl<'t> Tries<'t> {
    /// Before the first try. `memory`: the worker's; without one, `round_robin` draws by weight.
    #[must_use]
    pub fn new(
        table: &'t Table,
        file: FileIdx,
        decision: &'t Decision,
        draw: Draw,
        memory: Option<&'t Memory>,
    ) -> Self {
        let choice = match decision.outcome {
            Outcome::Pool(choice) => Some(choice),
            Outcome::Refuse { .. } | Outcome::Redirect | Outcome::Respond => None,
        };
        Self { table, file, decision, choice, pool: 0, tried: Tried::default(), level: None, draw, memory }
    }

    /// The first endpoint: one that waits for its probe in a pool that was passed over, or one of the chosen pool. A
    /// pool that proves empty hands on to the next step of the order of resort; the error is the status and the reason
    /// of the last one.
    pub fn first(&mut self, now: Millis, may_probe: bool) -> Result<Picked, (u16, Detail)> {
        if may_probe && let Some(picked) = self.probe_passed_over(now) {
            return Ok(picked);
        }
        if !may_probe && let Some(picked) = self.probe_open(now) {
            return Ok(picked);
        }
        let mut outcome = self.decision.outcome;
        // Each turn takes a later step, so this ends; the bound is for a table that would break that promise.
        for _ in 0..64 {
            match outcome {
                Outcome::Pool(choice) => {
                    if let Some(picked) = self.pick(choice, now, may_probe) {
                        return Ok(picked);
                    }
                    outcome = after_empty(self.table, self.decision, choice);
                }
                Outcome::Refuse { status, detail } => return Err((status, detail)),
                Outcome::Redirect | Outcome::Respond => break,
            }
        }
        Err((503, Detail::NoRoutableInstance))
    }

    /// Another endpoint: of the same pool, or for the last permitted try of the next pool where there is one, else of
    /// another locality level (at once when the last endpoint was `unreachable`: its neighbours may be cut off with it).
    /// Those whose last answer was a failure come after the others; when nobody is left, one that is ejected.
    pub fn next(&mut self, now: Millis, last: bool, unreachable: bool) -> Option<Picked> {
        let stands = self.choice?;
        if !last && let Some(picked) = self.pick_again(stands, now, unreachable) {
            return Some(picked);
        }
        if let Some(picked) = self.next_pool(now) {
            return Some(picked);
        }
        let same = if last { self.pick_again(stands, now, true) } else { None };
        same.or_else(|| self.last_resort())
    }

    /// An endpoint of the next pool of the list, or of the next arm, that has somebody: for a request that the pool at
    /// hand has no room for.
    pub fn next_pool(&mut self, now: Millis) -> Option<Picked> {
        let mut at = next_choice(self.table, self.decision, self.choice?);
        while let Some(choice) = at {
            if let Some(picked) = self.pick(choice, now, false) {
                return Some(picked);
            }
            at = next_choice(self.table, self.decision, choice);
        }
        None
    }

    /// An ejected endpoint of the pools that the request may go to.
    fn last_resort(&mut self) -> Option<Picked> {
        let (table, draw) = (self.table, self.draw.fork(Draw::PICK + self.tried.len() as u64));
        reached(table, self.decision, None).find_map(|slot| {
            let picked = last_resort(table.pool(self.file, slot), table.endpoints(self.file), draw, &self.tried)?;
            self.pool = table.files[self.file as usize].compiled(slot);
            Some(picked)
        })
    }

    /// Another endpoint of the same pool that was not tried: instead of these, which have no room, or beside the one
    /// that is being tried.
    #[must_use]
    pub fn instead(&self, now: Millis, full: &[EndpointIdx]) -> Option<Picked> {
        let mut tried = self.tried.clone();
        full.iter().for_each(|endpoint| tried.add(*endpoint));
        Self { tried, ..*self }.pick_of(self.choice?, now, false)
    }

    /// A pool whose members are all ejected is never chosen, so it gets its probe from a request that passes it over;
    /// if the probe fails, the request goes on to the pool that was chosen.
    fn probe_passed_over(&mut self, now: Millis) -> Option<Picked> {
        if self.choice.is_some_and(|choice| !choice.passes_over()) {
            return None;
        }
        let table = self.table;
        let endpoints = table.endpoints(self.file);
        reached(table, self.decision, self.choice).find_map(|slot| {
            let endpoint = probe(table.pool(self.file, slot), endpoints, now)?;
            self.pool = table.files[self.file as usize].compiled(slot);
            Some(Picked { endpoint, level: 0, probe: true, panic: false, last_resort: false })
        })
    }

    /// A service whose requests cannot be repeated would never take an instance back: one that has waited for long, and
    /// whose address accepts connections (`upstream::checks` has asked), gets one of them.
    fn probe_open(&mut self, now: Millis) -> Option<Picked> {
        let table = self.table;
        let endpoints = table.endpoints(self.file);
        let chosen = self.choice.map(|choice| choice.slot);
        let passed_over = self.choice.is_none_or(|choice| choice.passes_over());
        let reached = passed_over.then(|| reached(table, self.decision, self.choice)).into_iter().flatten();
        reached.chain(chosen).find_map(|slot| {
            let endpoint = probe_open(table.pool(self.file, slot), endpoints, now)?;
            self.pool = table.files[self.file as usize].compiled(slot);
            Some(Picked { endpoint, level: 0, probe: true, panic: false, last_resort: false })
        })
    }

    /// Notes that an endpoint gets a try.
    pub fn note(&mut self, picked: Picked) {
        self.tried.add(picked.endpoint);
        self.level = Some(picked.level);
    }

    fn pick(&mut self, choice: Choice, now: Millis, may_probe: bool) -> Option<Picked> {
        let picked = self.pick_of(choice, now, may_probe)?;
        (self.choice, self.pool) = (Some(choice), choice.pool);
        Some(picked)
    }

    fn pick_again(&mut self, choice: Choice, now: Millis, elsewhere: bool) -> Option<Picked> {
        let picked = self.pick_from(choice, now, false, self.level.filter(|_| elsewhere))?;
        (self.choice, self.pool) = (Some(choice), choice.pool);
        Some(picked)
    }

    fn pick_of(&self, choice: Choice, now: Millis, may_probe: bool) -> Option<Picked> {
        self.pick_from(choice, now, may_probe, None)
    }

    fn pick_from(&self, choice: Choice, now: Millis, may_probe: bool, elsewhere: Option<u8>) -> Option<Picked> {
        let pool = self.table.pool(self.file, choice.slot);
        let endpoints = self.table.endpoints(self.file);
        let draw = self.draw.fork(Draw::PICK + self.tried.len() as u64);
        if choice.step == Step::Panic {
            return pick_any(pool, endpoints, draw, &self.tried, &mut NoTrace);
        }
        let (tried, key, memory) = (&self.tried, self.decision.hash_of(pool), self.memory);
        let proven = !tried.is_empty();
        let asking = Asking { now, draw, tried, may_probe, key, memory, proven, elsewhere };
        let first = pick(pool, endpoints, &asking, &mut NoTrace);
        first.or_else(|| proven.then(|| pick(pool, endpoints, &Asking { proven: false, ..asking }, &mut NoTrace))?)
    }
}
