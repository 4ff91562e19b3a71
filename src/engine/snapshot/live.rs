//! Live state of one endpoint: the only mutable things reachable from a table. Atomics, no lock.
//!
//! Writers: any worker (evidence, in-flight, permits), the checks and the admin side. The publisher reads.
//! All that decides whether it may take traffic is one word, so that a pick reads it with one load, and each of its
//! changes has exactly one winner.

mod checks;
mod seats;

use std::any::Any;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::answer_times::{AnswerCounts, AnswerTimes};
use super::latency::Cost;
use super::window::Window;
use super::word::{DRAINED, OPEN, OUT, UNAVAILABLE, Word};
use crate::engine::health::{self, Evidence, Health, Kind, Reason, State, Streak, Tally, Transition};
use crate::engine::label::Text;
use crate::engine::limit::gradient::Adaptive;
use crate::engine::policy::Eject;
use crate::engine::time::{Draw, Millis};

/// Health, in-flight and latency of one endpoint, keyed by identity and address.
#[derive(Debug)]
#[repr(align(64))]
pub struct Live {
    /// Unique in the process; never reused. Workers key their own per-endpoint state (connections, metrics) by it.
    pub id: u64,
    /// The catalog's service name.
    pub service: Text,
    word: AtomicU64,
    /// High half: requests that ended. Low half: requests in flight.
    requests: AtomicU64,
    streak: AtomicU64,
    /// When the word last changed between in and out of traffic.
    changed: AtomicU64,
    /// Answers of the active check in a row against its verdict.
    check_against: AtomicU32,
    /// Why the active check failed last, packed; 0: it passed since.
    check_failure: AtomicU32,
    dirty: AtomicBool,
    /// A [`Cost`].
    latency: AtomicU64,
    /// When it first became routable, plus 1; 0: never yet.
    routable_since: AtomicU64,
    window: Window,
    /// How much it carries at once, by its latency. Fed where a service asks for it.
    pub adaptive: Adaptive,
    /// Requests that wait for a place.
    waiting: AtomicU32,
    /// What calls them in turn. Of the data plane's own kind, and kept here so that all workers find the same one
    /// without a lock; there once somebody waited.
    pub line: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Open connections over all workers, where they are bounded.
    seats: AtomicU32,
    /// Requests that wait for one of them.
    seats_wanted: AtomicU32,
    /// There once somebody asked for it: most services have no limit on latency.
    times: OnceLock<Box<AnswerTimes>>,
}

impl Live {
    /// A healthy endpoint of no service, without history, since the origin.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self::of_service(id, Text::default(), false, Millis(0))
    }

    /// An endpoint without history. `probing`: it must prove itself first (its address or version changed).
    #[must_use]
    pub fn of_service(id: u64, service: Text, probing: bool, now: Millis) -> Self {
        let state = if probing { State::Probing { permit_until: Millis(0) } } else { State::Healthy { since: now } };
        Self {
            id,
            service,
            word: AtomicU64::new(Word::default().with_state(state, 0).0),
            requests: AtomicU64::new(0),
            streak: AtomicU64::new(0),
            changed: AtomicU64::new(now.0),
            check_against: AtomicU32::new(0),
            check_failure: AtomicU32::new(0),
            dirty: AtomicBool::new(false),
            latency: AtomicU64::new(0),
            routable_since: AtomicU64::new(0),
            window: Window::default(),
            adaptive: Adaptive::default(),
            waiting: AtomicU32::new(0),
            line: OnceLock::new(),
            seats: AtomicU32::new(0),
            seats_wanted: AtomicU32::new(0),
            times: OnceLock::new(),
        }
    }

    /// Requests (and tunnels) between pick and the end of the answer.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.requests.load(Relaxed) as u32
    }

    /// A request goes to it. Each `begin` has one `end`.
    pub fn begin(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// A request goes to it, if fewer than `limit` do already. `queued`: it has waited for its turn; another one stands
    /// back while somebody waits. As [`Live::begin`] when true.
    #[must_use]
    pub fn try_begin(&self, limit: u32, queued: bool) -> bool {
        if !queued && self.waiting.load(Relaxed) > 0 {
            return false;
        }
        let one_more = |word: u64| ((word as u32) < limit).then(|| word.wrapping_add(1));
        self.requests.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// Requests that wait for a place.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Joins those who wait, if fewer than `most` do. Each true is followed by one [`Live::leave`].
    #[must_use]
    pub fn join(&self, most: u32) -> bool {
        let one_more = |waiting: u32| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// Waits no longer.
    pub fn leave(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// A request to it ended, after its evidence was recorded.
    pub fn end(&self) {
        self.requests.fetch_add((1 << 32) - 1, Relaxed);
    }

    /// A request to it ended that gave no evidence (a copy, a hedge that lost, one whose client left before the answer):
    /// it does not count among those that ended, for it says nothing for the instance either.
    pub fn abandon(&self) {
        self.requests.fetch_sub(1, Relaxed);
    }

    /// Whether our own knowledge lets it take traffic: not ejected, not probing, not drained, check not failing, not
    /// held. One relaxed load. The catalog's side (status, weight) is the pool's.
    #[must_use]
    pub fn available(&self) -> bool {
        self.word.load(Relaxed) & UNAVAILABLE == 0
    }

    /// As [`Live::available`], but passive ejection does not count: what a pool asks that refused the ejection.
    #[must_use]
    pub fn available_but_for_ejection(&self) -> bool {
        self.word.load(Relaxed) & (UNAVAILABLE & !OUT) == 0
    }

    /// Whether the last answer that counts was a failure.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.streak.load(Relaxed) != 0
    }

    /// An unpacked copy, without the window: see [`Live::recent`].
    #[must_use]
    pub fn health(&self) -> Health {
        self.word().health(Streak::unpack(self.streak.load(Relaxed)), Tally::default())
    }

    /// Requests that ended, and those of them that failed, in the window before `now`.
    #[must_use]
    pub fn recent(&self, now: Millis, window_ms: u64) -> Tally {
        self.window.tally(now, window_ms, self.finished())
    }

    /// The state alone.
    #[must_use]
    pub fn state(&self) -> State {
        self.word().state()
    }

    /// When it last left or re-entered traffic by evidence.
    #[must_use]
    pub fn changed(&self) -> Millis {
        Millis(self.changed.load(Relaxed))
    }

    /// Whether an operator took it out.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.word.load(Relaxed) & DRAINED != 0
    }

    /// Takes it out of (or back into) traffic without a verdict. True when that changed something.
    pub fn set_drained(&self, drained: bool) -> bool {
        self.set_bit(DRAINED, drained)
    }

    /// Takes evidence of one exchange, before its [`Live::end`]. Returns the transition that this caller won, if any.
    /// Every failure is counted; of several callers that reach a threshold exactly one wins.
    pub fn record(&self, evidence: Evidence, now: Millis, policy: &Eject, jitter: Draw) -> Option<Transition> {
        self.window.touch(now, policy.window, || self.finished());
        if evidence == Evidence::Success && self.word.load(Relaxed) & OUT == 0 {
            if self.streak.load(Relaxed) != 0 {
                self.streak.store(0, Relaxed);
            }
            return None;
        }
        let streak = self.count(evidence);
        if evidence.is_against() {
            self.window.fail(now, policy.window);
        }
        let window = self.window.tally(now, policy.window, self.finished().wrapping_add(1));
        self.change(|word| health::step(word.health(streak, window), evidence, now, policy, jitter))
    }

    /// An operator ejects it for `ms`. It counts against the pool's cap as any ejection; to take it out for good,
    /// drain it. `None` when it was out already.
    pub fn eject(&self, now: Millis, ms: u64) -> Option<Transition> {
        let policy = Eject { base_ejection_time: ms, max_ejection_time: ms, ..Eject::default() };
        self.change(|word| {
            let health = word.health(Streak::default(), Tally::default());
            if health.is_out() {
                (health, None)
            } else {
                health::eject(health, Reason::Operator, now, &policy, Draw(0))
            }
        })
    }

    /// An operator readmits it. `None` when it was in.
    pub fn readmit(&self, now: Millis) -> Option<Transition> {
        self.change(|word| health::readmit(word.health(Streak::default(), Tally::default()), Reason::Operator, now))
    }

    /// It served a request before its ejection was over (a last resort): back into traffic. `None`: it was in.
    pub fn prove(&self, now: Millis) -> Option<Transition> {
        self.change(|word| {
            health::readmit(word.health(Streak::default(), Tally::default()), Reason::ProbeSucceeded, now)
        })
    }

    /// Whether a request may prove it: out by evidence, its time over, no permit out, and nothing else against it.
    #[must_use]
    pub fn wants_probe(&self, now: Millis) -> bool {
        self.word().wants_probe(now)
    }

    /// Takes the one permit to prove it. It lapses after `lapse_ms`, lest a lost request keep it out for ever.
    /// Exactly one caller wins.
    pub fn take_probe_permit(&self, now: Millis, lapse_ms: u64) -> bool {
        let word = self.word();
        let probing = State::Probing { permit_until: now.plus(lapse_ms.max(1)) };
        word.wants_probe(now) && self.swap(word, word.with_state(probing, word.times()))
    }

    /// How long it has waited for a request that may prove it, in milliseconds; 0 where it does not wait.
    #[must_use]
    pub fn waits_for_trial(&self, now: Millis) -> u64 {
        match self.state() {
            _ if !self.wants_probe(now) => 0,
            State::Healthy { .. } => 0,
            State::Ejected { until } => now.since(until),
            State::Probing { permit_until } => now.since(permit_until.max(self.changed())),
        }
    }

    /// Lets any request prove it, also one that cannot be repeated, until its state changes. True when that is new.
    pub fn open_trial(&self, now: Millis) -> bool {
        let word = self.word();
        word.wants_probe(now) && word.0 & OPEN == 0 && self.swap(word, Word(word.0 | OPEN))
    }

    /// Whether any request may prove it.
    #[must_use]
    pub fn trial_is_open(&self) -> bool {
        self.word.load(Relaxed) & OPEN != 0
    }

    /// As [`Live::take_probe_permit`], for a request that cannot be repeated.
    pub fn take_open_permit(&self, now: Millis, lapse_ms: u64) -> bool {
        self.trial_is_open() && self.take_probe_permit(now, lapse_ms)
    }

    /// Requests that have ended, modulo 2^32.
    #[must_use]
    pub fn ended(&self) -> u32 {
        self.finished()
    }

    /// Makes it prove itself before it takes traffic (its version changed in place), its latency forgotten
    /// and its slow start begun anew.
    /// `None` when it is out already.
    pub fn distrust(&self, now: Millis) -> Option<Transition> {
        self.latency.store(0, Relaxed);
        self.routable_since.store(0, Relaxed);
        self.change(|word| {
            let health = word.health(Streak::default(), Tally::default());
            if health.is_out() {
                return (health, None);
            }
            let transition = Transition { kind: Kind::Probing, reason: Reason::Changed, at: now, enforced: true };
            (Health { state: State::Probing { permit_until: Millis(0) }, ..health }, Some(transition))
        })
    }

    /// Feeds the moving cost with the time from sending a request to the answer's head, in microseconds.
    /// Call it where the pool's algorithm is `ewma`; it writes at each call.
    pub fn observe_latency(&self, rtt_micros: u64, now: Millis) {
        let next = |word: u64| Some(Cost::unpack(word).after(rtt_micros, now).pack());
        let _ = self.latency.fetch_update(Relaxed, Relaxed, next);
    }

    /// The moving cost in microseconds as of a moment; `None` before the first answer.
    #[must_use]
    pub fn cost_micros(&self, now: Millis) -> Option<f32> {
        Cost::unpack(self.latency.load(Relaxed)).micros(now)
    }

    /// When it first became routable in some pool, for slow start. The origin: it was there before us, or never was.
    #[must_use]
    pub fn first_routable(&self) -> Millis {
        Millis(self.routable_since.load(Relaxed).saturating_sub(1))
    }

    /// The publisher found it routable: the clock of its slow start begins, unless it runs. Returns when it began.
    pub fn note_routable(&self, now: Millis) -> Millis {
        if self.routable_since.load(Relaxed) == 0 {
            let _ = self.routable_since.compare_exchange(0, now.0.saturating_add(1), Relaxed, Relaxed);
        }
        self.first_routable()
    }

    /// It was there before we were: it never starts slowly.
    pub fn set_established(&self) {
        self.routable_since.store(1, Relaxed);
    }

    /// Counts how long an answer took, in microseconds, if anybody wants to know. At most one relaxed addition.
    pub fn time_answer(&self, micros: u64) {
        if let Some(times) = self.times.get() {
            times.add(micros);
        }
    }

    /// How long answers have taken since the first call, which starts the measuring.
    #[must_use]
    pub fn answer_times(&self) -> AnswerCounts {
        self.times.get_or_init(Box::default).counts()
    }

    /// Takes a verdict that was reached by comparing it with others. `None` when it is out already.
    pub fn judge(&self, reason: Reason, now: Millis, policy: &Eject, jitter: Draw) -> Option<Transition> {
        self.change(|word| {
            let health = word.health(Streak::default(), Tally::default());
            if health.is_out() { (health, None) } else { health::eject(health, reason, now, policy, jitter) }
        })
    }

    /// Marks it for the publisher. True for the first marker since it was last taken out of the queue, who puts it there.
    pub fn mark_dirty(&self) -> bool {
        !self.dirty.load(Relaxed) && !self.dirty.swap(true, Relaxed)
    }

    /// The publisher took it out of the queue; call it before reading the state.
    pub fn clear_dirty(&self) {
        self.dirty.store(false, Relaxed);
    }

    /// Counts the evidence in the streak; the value returned is this caller's own.
    fn count(&self, evidence: Evidence) -> Streak {
        let mut seen = self.streak.load(Relaxed);
        loop {
            let next = Streak::unpack(seen).after(evidence);
            if next.pack() == seen {
                return next;
            }
            match self.streak.compare_exchange_weak(seen, next.pack(), Relaxed, Relaxed) {
                Ok(_) => return next,
                Err(now) => seen = now,
            }
        }
    }

    /// Applies a pure judgement by compare-and-swap, judging anew when somebody else was faster.
    fn change(&self, judge: impl Fn(Word) -> (Health, Option<Transition>)) -> Option<Transition> {
        loop {
            let word = self.word();
            let (next, transition) = judge(word);
            let transition = transition?;
            let next = word.with_state(next.state, next.times);
            if next == word || self.swap(word, next) {
                self.streak.store(0, Relaxed);
                self.window.clear();
                if word.state() != next.state() {
                    self.changed.store(transition.at.0, Relaxed);
                }
                return Some(transition);
            }
        }
    }

    fn finished(&self) -> u32 {
        (self.requests.load(Relaxed) >> 32) as u32
    }

    fn word(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.0, to.0, Relaxed, Relaxed).is_ok()
    }

    fn set_bit(&self, bit: u64, on: bool) -> bool {
        let before = if on { self.word.fetch_or(bit, Relaxed) } else { self.word.fetch_and(!bit, Relaxed) };
        (before & bit != 0) != on
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
