//! The recorder: notes for `explain`, in words and numbers that no table is needed to read.

use super::{Note, Trace};
use crate::engine::balance::PassedOver;
use crate::engine::diagnostic::Source;
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op, Version};
use crate::engine::format::explanation::{
    ArmNote, ClaimNote, ComparedNote, FailedTerm, LabelNote, RuleNote, SplitNote, Verdict,
};
use crate::engine::route::condition::Condition;
use crate::engine::route::reader::Reader;
use crate::engine::route::split::{self, Drawn, KeySource};
use crate::engine::route::{RouterFile, RuleIdx, Split};
use crate::engine::snapshot::EndpointIdx;
use crate::engine::table::{Level, Pool};

/// Alternatives of a failed `or` that are told.
const MOST_TERMS: usize = 8;

/// Notes of one decision and its picks.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The file's claim.
    pub claim: Option<ClaimNote>,
    /// The request's labels.
    pub labels: Vec<LabelNote>,
    /// Every rule in order.
    pub rules: Vec<RuleNote>,
    /// The split that drew.
    pub split: Option<SplitNote>,
    /// Ranks of the levels that were tried, in order, since the last pool.
    pub levels: Vec<u8>,
    /// The last comparison of two endpoints.
    pub compared: Option<Compared>,
    /// Endpoints that were drawn and could not be used, since the last pool.
    pub passed_over: Vec<(EndpointIdx, PassedOver)>,
    /// Key fields of `hash(KEY)` by slot: as written, with their values.
    pub keys: Vec<(u32, String, Option<String>)>,
    /// Where the last key fell.
    pub placed: Option<Placed>,
}

/// Where a key fell in a Maglev table.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The key's hash.
    pub hash: u64,
    /// The entry.
    pub entry: usize,
    /// Entries of the table.
    pub size: usize,
    /// How often the key was hashed again; beyond 8 the table was walked.
    pub again: u32,
}

/// Two endpoints that `least` compared.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Drawn by weight.
    pub a: EndpointIdx,
    /// The other.
    pub b: EndpointIdx,
    /// Requests in flight of both.
    pub in_flight: [u32; 2],
    /// Moving costs of both in microseconds, where they count.
    pub costs: Option<[u64; 2]>,
    /// The better one.
    pub chosen: EndpointIdx,
}

impl Compared {
    /// With names for the endpoints.
    #[must_use]
    pub fn named(self, name: impl Fn(EndpointIdx) -> String) -> ComparedNote {
        let Self { in_flight, costs, .. } = self;
        ComparedNote { a: name(self.a), b: name(self.b), in_flight, costs, chosen: name(self.chosen) }
    }
}

impl Trace for Recorder {
    const ENABLED: bool = true;

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Claim(claim) => {
                self.claim = claim.map(|claim| ClaimNote {
                    host: claim.host.map(|host| if claim.wildcard { format!("*.{host}") } else { host.into() }),
                    path: claim.path.into(),
                });
            }
            Note::Label { name, value } => {
                self.labels.push(LabelNote { name: name.into(), value: value.map(lossy) });
            }
            Note::Split { split, drawn, key } => self.split = Some(split_note(split, drawn, key)),
            Note::HashKey { field, name, value } => self.keys.push((field, name.to_string(), value.map(lossy))),
            Note::Decided(_) => {}
        }
    }

    fn rule(&mut self, file: &RouterFile, rule: RuleIdx, tried: bool, holds: bool, reader: &mut Reader<'_, '_>) {
        let (used, written) = (&file.rules[rule as usize], &file.ruleset.rules[rule as usize]);
        let mut failed = Vec::new();
        if let (true, false, Some(when)) = (tried, holds, &written.when) {
            let mut search = Search { source: &file.ruleset.source, reader, found: &mut failed };
            search.terms(&used.condition, when);
        }
        self.rules.push(RuleNote {
            name: used.name.to_string(),
            line: file.ruleset.source.position(written.name.span.start).0,
            when: written.when.as_ref().map(|when| when.text.to_string()),
            verdict: match (tried, holds) {
                (false, _) => Verdict::NotTried,
                (true, true) => Verdict::Matched,
                (true, false) => Verdict::Failed,
            },
            failed,
        });
    }

    fn pool(&mut self, _pool: &Pool) {
        self.levels.clear();
        self.passed_over.clear();
        (self.compared, self.placed) = (None, None);
    }

    fn level(&mut self, level: &Level) {
        self.levels.push(level.rank);
    }

    fn passed_over(&mut self, endpoint: EndpointIdx, why: PassedOver) {
        self.passed_over.push((endpoint, why));
    }

    fn compared(
        &mut self,
        a: EndpointIdx,
        b: EndpointIdx,
        in_flight: [u32; 2],
        costs: Option<[u64; 2]>,
        chosen: EndpointIdx,
    ) {
        self.compared = Some(Compared { a, b, in_flight, costs, chosen });
    }

    fn placed(&mut self, hash: u64, entry: usize, size: usize, again: u32) {
        self.placed = Some(Placed { hash, entry, size, again });
    }
}

/// Walks condition and expression side by side to the terms that decided.
struct Search<'a, 'r, 's, 'o> {
    source: &'a Source,
    reader: &'a mut Reader<'r, 's>,
    found: &'o mut Vec<FailedTerm>,
}

impl Search<'_, '_, '_, '_> {
    /// The condition is known not to hold.
    fn terms(&mut self, condition: &Condition, expr: &Expr) {
        match (condition, &expr.kind) {
            (Condition::And(parts), ExprKind::And(exprs)) => {
                let failed = parts.iter().position(|part| !part.holds(self.reader));
                if let Some(at) = failed {
                    self.terms(&parts[at], &exprs[at]);
                }
            }
            (Condition::Or(parts), ExprKind::Or(exprs)) => {
                for (part, expr) in parts.iter().zip(exprs) {
                    if self.found.len() < MOST_TERMS {
                        self.terms(part, expr);
                    }
                }
            }
            (condition, _) => self.term(condition, expr),
        }
    }

    fn term(&mut self, condition: &Condition, expr: &Expr) {
        let (line, column) = self.source.position(expr.span.start);
        let (field, actual, note) = match condition {
            Condition::Test { slot, .. } => self.actual(*slot, expr),
            Condition::Percent { key, salt, .. } => match split::keyed_hash(self.reader, key, salt) {
                Some(hash) => (None, Some(format!("at {}", share(split::scaled(hash, 1_000_000), 1_000_000))), None),
                None => (None, None, Some("none of its fields is present".into())),
            },
            _ => (None, None, None),
        };
        self.found.push(FailedTerm { text: expr.text.to_string(), line, column, field, actual, note });
    }

    fn actual(&mut self, slot: u32, expr: &Expr) -> (Option<String>, Option<String>, Option<String>) {
        let known = &self.reader.fields.slots[slot as usize];
        let field = Some(known.field.to_string());
        if known.control && !self.reader.request.trusted {
            return (field, None, Some("hidden: the peer is not trusted with control headers".into()));
        }
        if known.field == Field::TlsClientSan {
            let all = self.reader.request.san.join(", ");
            return (field, Some(all).filter(|all| !all.is_empty()), None);
        }
        let actual = self.reader.value(slot).map(lossy);
        let versions =
            matches!(&expr.kind, ExprKind::Test(test) if matches!(test.op, Op::Order(..) | Op::Requirement(_)));
        let odd = actual.as_deref().filter(|text| versions && Version::parse(text).is_none());
        let note = odd.map(|_| "not a version, so the comparison is false".into());
        (field, actual, note)
    }
}

fn split_note(split: &Split, drawn: &Drawn, key: Option<(&str, &[u8])>) -> SplitNote {
    let (source, value) = match (drawn.source, key) {
        (KeySource::Field(_), Some((field, value))) => (field.to_owned(), Some(lossy(value))),
        (KeySource::Field(at), None) => (format!("key {}", at + 1), None),
        (KeySource::Cookie, _) => ("the cookie of an earlier answer".into(), None),
        (KeySource::Minted(_), _) => ("a new cookie".into(), None),
        (KeySource::Drawn, _) => ("the request's draw".into(), None),
    };
    let arms = split.arms.iter().map(|arm| ArmNote {
        name: arm.name.to_string(),
        weight: arm.weight,
        share: share(arm.weight, split.total),
    });
    SplitNote {
        key: source,
        value,
        salt: split.salt.to_string(),
        epoch: split.epoch,
        hash: format!("{:016x}", drawn.hash),
        point: share(split::scaled(drawn.hash, split.total), split.total),
        arms: arms.collect(),
        order: drawn.arms.iter().map(|arm| split.arms[usize::from(*arm)].name.to_string()).collect(),
    }
}

/// A part of a whole in percent, two digits at most, without floating point.
fn share(part: u64, whole: u64) -> String {
    let hundredths = (u128::from(part) * 10_000 / u128::from(whole.max(1))) as u64;
    match (hundredths / 100, hundredths % 100) {
        (percent, 0) => format!("{percent}%"),
        (percent, rest) => format!("{percent}.{}%", format!("{rest:02}").trim_end_matches('0')),
    }
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
