//! A request's decision: which file, which rule, which pool. Pure; no lock, no formatting, no allocation once warm.

use http::Method;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::decision::{Choice, Decision, Detail, Mint, Outcome};
use super::reader::Reader;
use super::resolved::Resolved;
use super::resort::Walk;
use super::router::{Action, PoolSlot, RouterFile, RuleIdx, Split};
use super::scratch::Scratch;
use super::split::{self, Drawn, KeySource};
use crate::engine::request::RequestView;
use crate::engine::time::Draw;
use crate::engine::trace::{Note, Trace};

/// Decides. The first rule that matches is final: it never falls through to the next one.
pub fn decide(
    table: &impl Resolved,
    request: &RequestView<'_>,
    draw: Draw,
    scratch: &mut Scratch,
    trace: &mut impl Trace,
) -> Decision {
    let router = table.router();
    let claim = router.hosts.find(request.host, request.path);
    note(trace, || Note::Claim(claim));
    let Some(claim) = claim else {
        return Decision::of(None, None, Outcome::Refuse { status: 404, detail: Detail::NoRoute });
    };
    let file = &*router.files[claim.file as usize];
    let mut reader = Reader::begin(request, &file.fields, scratch);
    let rule = first_match(file, &mut reader);
    note_rules(file, rule, &mut reader, trace);
    let undecided = Outcome::Refuse { status: 503, detail: Detail::NoRoutableInstance };
    let mut decision = Decision::of(Some(claim.file), rule, undecided);
    let action = rule.map(|rule| &file.rules[rule as usize].action);
    match action {
        Some(Action::Redirect { .. } | Action::Respond { .. }) if request.method == Method::CONNECT => {
            decision.outcome = Outcome::Refuse { status: 405, detail: Detail::MethodRefused };
        }
        Some(Action::Redirect { .. }) => decision.outcome = Outcome::Redirect,
        Some(Action::Respond { .. }) => decision.outcome = Outcome::Respond,
        None => {}
        Some(Action::To(_) | Action::Split(_)) => {
            if let Some(Action::Split(split)) = action {
                let drawn = split::draw_arms(split, &file.cookie, &mut reader, draw);
                note_split(split, &drawn, &mut reader, trace);
                decision.mint = minted(drawn.source);
                decision.key = keyed(&drawn);
                decision.arms = drawn.arms;
            }
            decision.variants = variants(table, claim.file, file, decision.rule, &mut reader);
        }
    }
    let hashed = match (rule, action) {
        (_, Some(Action::Redirect { .. } | Action::Respond { .. })) => &[][..],
        (Some(rule), _) => &file.rules[rule as usize].hashed,
        (None, _) => &file.hashed,
    };
    for key in hashed {
        hash_key(*key, &mut decision, &mut reader, trace);
    }
    if matches!(action, None | Some(Action::To(_) | Action::Split(_))) {
        let walk = Walk {
            table,
            file_idx: claim.file,
            file,
            rule: rule.map(|rule| &file.rules[rule as usize]),
            decision: &decision,
        };
        let outcome = walk.outcome(None);
        decision.settle(outcome);
    }
    note(trace, || Note::Decided(&decision));
    decision
}

/// The first rule of the file whose condition holds; only candidates of the index are tried.
fn first_match(file: &RouterFile, reader: &mut Reader<'_, '_>) -> Option<RuleIdx> {
    let mut candidates = file.index.candidates();
    while let Some(rule) = candidates.next(reader) {
        if file.rules[rule as usize].condition.holds(reader) {
            return Some(rule);
        }
    }
    None
}

/// The variants of the pools that name request labels.
fn variants(
    table: &impl Resolved,
    file_idx: u32,
    file: &RouterFile,
    rule: Option<RuleIdx>,
    reader: &mut Reader<'_, '_>,
) -> SmallVec<[(PoolSlot, Option<PoolSlot>); 2]> {
    let mut found = SmallVec::new();
    let labelled = rule.map_or(&[][..], |rule| &file.rules[rule as usize].labelled);
    for pool in labelled {
        let mut values: SmallVec<[SmallVec<[u8; 32]>; 2]> = SmallVec::new();
        for label in &file.pools[*pool as usize].labels {
            values.extend(reader.label(*label).map(SmallVec::from_slice));
        }
        let all = values.len() == file.pools[*pool as usize].labels.len();
        let values: SmallVec<[&[u8]; 2]> = values.iter().map(|value| &value[..]).collect();
        found.push((*pool, if all { table.variant(file_idx, *pool, &values) } else { None }));
    }
    found
}

/// The hash that a pool with `hash(KEY)` goes by: plain XXH3 of the value, so that every replica agrees.
fn hash_key<T: Trace>(key: u32, decision: &mut Decision, reader: &mut Reader<'_, '_>, trace: &mut T) {
    let fields = reader.fields;
    let value = reader.nonempty(key);
    note(trace, || Note::HashKey { field: key, name: &fields.slots[key as usize].field, value });
    if let Some(value) = value {
        decision.hashes.push((key, xxh3_64(value)));
    }
}

fn minted(source: KeySource) -> Option<Mint> {
    match source {
        KeySource::Minted(mint) => Some(mint),
        KeySource::Field(_) | KeySource::Cookie | KeySource::Drawn => None,
    }
}

fn keyed(drawn: &Drawn) -> Option<u64> {
    match drawn.source {
        KeySource::Field(_) | KeySource::Cookie => Some(drawn.hash),
        KeySource::Minted(_) | KeySource::Drawn => None,
    }
}

/// Every rule up to the one that matched, whether or not the index tried it, and the request's labels.
fn note_rules<T: Trace>(file: &RouterFile, matched: Option<RuleIdx>, reader: &mut Reader<'_, '_>, trace: &mut T) {
    if !T::ENABLED {
        return;
    }
    for (at, label) in file.fields.labels.iter().enumerate() {
        trace.note(Note::Label { name: &label.name, value: reader.label(at as u32) });
    }
    for (at, rule) in file.rules.iter().enumerate() {
        let at = at as RuleIdx;
        let tried = matched.is_none_or(|matched| at <= matched);
        let holds = tried && rule.condition.holds(reader);
        trace.rule(file, at, tried, holds, reader);
    }
}

fn note_split<T: Trace>(split: &Split, drawn: &Drawn, reader: &mut Reader<'_, '_>, trace: &mut T) {
    if !T::ENABLED {
        return;
    }
    let slot = match drawn.source {
        KeySource::Field(at) => Some(split.key[at]),
        KeySource::Cookie | KeySource::Minted(_) | KeySource::Drawn => None,
    };
    let name = slot.map(|slot| reader.fields.slots[slot as usize].field.to_string());
    let value = slot.and_then(|slot| reader.value(slot));
    trace.note(Note::Split { split, drawn, key: name.as_deref().zip(value) });
}

fn note<'n, T: Trace>(trace: &mut T, note: impl FnOnce() -> Note<'n>) {
    if T::ENABLED {
        trace.note(note());
    }
}

impl Decision {
    fn of(file: Option<u32>, rule: Option<RuleIdx>, outcome: Outcome) -> Self {
        Self {
            file,
            rule,
            arm: None,
            rerouted: false,
            outcome,
            mint: None,
            key: None,
            arms: SmallVec::new(),
            variants: SmallVec::new(),
            hashes: SmallVec::new(),
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        let turn = match outcome {
            Outcome::Pool(choice) => choice.turn,
            Outcome::Redirect | Outcome::Respond | Outcome::Refuse { .. } => 0,
        };
        self.rerouted = turn > 0;
        self.arm = self.arms.get(usize::from(turn)).map(|arm| u32::from(*arm));
    }

    /// Whether a choice of this decision is in another arm than the request's own.
    #[must_use]
    pub fn is_rerouted(&self, choice: Choice) -> bool {
        choice.turn > 0
    }

    /// The arm that a choice of this decision belongs to; `None` without a split.
    #[must_use]
    pub fn arm_of(&self, choice: Choice) -> Option<u32> {
        self.arms.get(usize::from(choice.turn)).map(|arm| u32::from(*arm))
    }
}
