//! Which rules of a file can match at all: by the exact values, path prefixes and patterns that conditions require.
//!
//! A rule whose condition cannot hold without `field == "x"` (or `in`, `under`, `matches`, or an `or` of such) is posted
//! under it; the others are always candidates. Candidates come in written order, and a field is read only when a rule
//! that depends on it could be the next one.

use http::HeaderName;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::condition::{Ask, Condition};
use super::hosts::upto;
use super::reader::{Fields, Reader};
use super::router::RuleIdx;
use crate::engine::expr::ast::{Field, Op, Operand};

/// Above this many headers with postings, a request's headers are looked up rather than each of these.
const FEW_HEADERS: usize = 8;
/// A rule with more alternatives than this is always a candidate.
const MOST_ANCHORS: usize = 256;

/// The index of one file.
#[derive(Debug, Default)]
pub struct RuleIndex {
    /// Rules without an anchor.
    always: Vec<RuleIdx>,
    /// In the order of their first rule.
    postings: Vec<Postings>,
}

#[derive(Debug)]
struct Postings {
    first: RuleIdx,
    by: By,
}

type Values = FxHashMap<Box<[u8]>, Vec<RuleIdx>>;

#[derive(Debug)]
enum By {
    /// The exact value of a field.
    Value(u32, Values),
    /// A prefix of the path.
    Under { prefixes: Values, depth: usize },
    /// The patterns of a set that match.
    Pattern(u32, Vec<Vec<RuleIdx>>),
    /// The exact values of many headers.
    Headers(FxHashMap<HeaderName, (u32, Values)>),
}

/// What a condition cannot hold without.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Anchor {
    Value(u32, Box<[u8]>),
    Under(Box<[u8]>),
    Pattern(u32, usize),
}

impl RuleIndex {
    /// The index over the conditions of a file's rules, in order.
    #[must_use]
    pub fn new<'c>(conditions: impl Iterator<Item = &'c Condition>, fields: &Fields) -> Self {
        let all: Vec<Vec<Vec<Anchor>>> = conditions.map(|condition| anchors(condition, fields)).collect();
        let mut size: FxHashMap<&Anchor, usize> = FxHashMap::default();
        all.iter().flatten().flatten().for_each(|anchor| *size.entry(anchor).or_default() += 1);
        let mut index = Self::default();
        let mut by: FxHashMap<&Anchor, Vec<RuleIdx>> = FxHashMap::default();
        for (rule, ways) in all.iter().enumerate() {
            let narrowest = ways.iter().min_by_key(|way| way.iter().map(|anchor| size[anchor]).sum::<usize>());
            match narrowest {
                Some(way) => way.iter().for_each(|anchor| by.entry(anchor).or_default().push(rule as RuleIdx)),
                None => index.always.push(rule as RuleIdx),
            }
        }
        index.postings = postings(by, fields);
        index
    }

    /// The candidates for a request, in written order.
    #[must_use]
    pub fn candidates(&self) -> Candidates<'_> {
        let mut lists = SmallVec::new();
        if !self.always.is_empty() {
            lists.push(&self.always[..]);
        }
        Candidates { unopened: &self.postings, lists }
    }
}

/// Walks the candidates. Not an iterator, because each step reads the request.
#[derive(Debug)]
pub struct Candidates<'i> {
    unopened: &'i [Postings],
    /// Rules still to come, each list ascending.
    lists: SmallVec<[&'i [RuleIdx]; 16]>,
}

impl<'i> Candidates<'i> {
    /// The next rule that could match.
    pub fn next(&mut self, reader: &mut Reader<'_, '_>) -> Option<RuleIdx> {
        loop {
            let best = self.lists.iter().filter_map(|list| list.first()).min().copied();
            match (self.unopened.split_first(), best) {
                (Some((postings, rest)), best) if best.is_none_or(|best| postings.first <= best) => {
                    self.unopened = rest;
                    postings.open(reader, &mut self.lists);
                }
                (_, None) => return None,
                (_, Some(best)) => {
                    for list in &mut self.lists {
                        if list.first() == Some(&best) {
                            *list = &list[1..];
                        }
                    }
                    return Some(best);
                }
            }
        }
    }
}

impl Postings {
    /// Adds the lists that this request's values lead to.
    fn open<'i>(&'i self, reader: &mut Reader<'_, '_>, lists: &mut SmallVec<[&'i [RuleIdx]; 16]>) {
        match &self.by {
            By::Value(slot, values) => {
                lists.extend(reader.value(*slot).and_then(|value| values.get(value)).map(Vec::as_slice));
            }
            By::Under { prefixes, depth } => {
                let path = reader.request.path;
                let mut end = upto(path, *depth);
                while end > 0 {
                    lists.extend(prefixes.get(&path.as_bytes()[..end]).map(Vec::as_slice));
                    end = path[..end].rfind('/').unwrap_or(0);
                }
                lists.extend(prefixes.get(&b"/"[..]).filter(|_| path != "/").map(Vec::as_slice));
            }
            By::Pattern(set, rules) => {
                let posted = reader.matched(*set).iter().filter_map(|id| rules.get(id.as_usize()));
                lists.extend(posted.map(Vec::as_slice));
            }
            By::Headers(names) => {
                for name in reader.request.headers.keys() {
                    let Some((slot, values)) = names.get(name) else { continue };
                    lists.extend(reader.value(*slot).and_then(|value| values.get(value)).map(Vec::as_slice));
                }
            }
        }
    }
}

fn postings(by: FxHashMap<&Anchor, Vec<RuleIdx>>, fields: &Fields) -> Vec<Postings> {
    let mut values: FxHashMap<u32, Values> = FxHashMap::default();
    let mut prefixes = Values::default();
    let mut patterns: FxHashMap<u32, Vec<Vec<RuleIdx>>> = FxHashMap::default();
    for (anchor, rules) in by {
        match anchor {
            Anchor::Value(slot, value) => {
                values.entry(*slot).or_default().insert(value.clone(), rules);
            }
            Anchor::Under(prefix) => {
                prefixes.insert(prefix.clone(), rules);
            }
            Anchor::Pattern(set, id) => {
                let lists = patterns.entry(*set).or_default();
                lists.resize(lists.len().max(id + 1), Vec::new());
                lists[*id] = rules;
            }
        }
    }
    let mut all: Vec<By> = Vec::new();
    if !prefixes.is_empty() {
        let depth = prefixes.keys().map(|prefix| prefix.iter().filter(|byte| **byte == b'/').count()).max();
        all.push(By::Under { prefixes, depth: depth.unwrap_or(1) });
    }
    all.extend(patterns.into_iter().map(|(set, rules)| By::Pattern(set, rules)));
    let (headers, others): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(slot, _)| matches!(fields.slots[*slot as usize].field, Field::Header(_)));
    if headers.len() > FEW_HEADERS {
        let named = headers.into_iter().filter_map(|(slot, values)| match &fields.slots[slot as usize].field {
            Field::Header(name) => Some((name.clone(), (slot, values))),
            _ => None,
        });
        all.push(By::Headers(named.collect()));
        all.extend(others.into_iter().map(|(slot, values)| By::Value(slot, values)));
    } else {
        all.extend(headers.into_iter().chain(others).map(|(slot, values)| By::Value(slot, values)));
    }
    let mut all: Vec<Postings> = all.into_iter().map(|by| Postings { first: by.first(), by }).collect();
    all.sort_by_key(|postings| postings.first);
    all
}

impl By {
    fn first(&self) -> RuleIdx {
        fn first<'l>(lists: impl Iterator<Item = &'l Vec<RuleIdx>>) -> RuleIdx {
            lists.filter_map(|list| list.first()).min().copied().unwrap_or(RuleIdx::MAX)
        }
        match self {
            Self::Value(_, values) => first(values.values()),
            Self::Under { prefixes, .. } => first(prefixes.values()),
            Self::Pattern(_, rules) => first(rules.iter()),
            Self::Headers(names) => first(names.values().flat_map(|(_, values)| values.values())),
        }
    }
}

/// The ways to anchor a condition: each is a set of anchors of which at least one must be met.
fn anchors(condition: &Condition, fields: &Fields) -> Vec<Vec<Anchor>> {
    match condition {
        Condition::And(parts) => parts.iter().flat_map(|part| anchors(part, fields)).collect(),
        Condition::Or(parts) => {
            let narrowest = |part| anchors(part, fields).into_iter().min_by_key(Vec::len);
            let all: Option<Vec<Vec<Anchor>>> = parts.iter().map(narrowest).collect();
            all.map(|ways| {
                let mut union = ways.concat();
                let mut seen = std::collections::HashSet::new();
                union.retain(|anchor| seen.insert(anchor.clone()));
                union
            })
            .filter(|union| union.len() <= MOST_ANCHORS)
            .into_iter()
            .collect()
        }
        Condition::Test { slot, ask, negated: false } => test_anchors(*slot, ask, fields).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn test_anchors(slot: u32, ask: &Ask, fields: &Fields) -> Option<Vec<Anchor>> {
    let field = &fields.slots[slot as usize].field;
    let value = |text: &str| Anchor::Value(slot, text.as_bytes().into());
    match ask {
        Ask::Pattern { set, id } => Some(vec![Anchor::Pattern(*set, id.as_usize())]),
        Ask::Value(_) if matches!(field, Field::TlsClientSan) => None,
        Ask::Value(Op::Equal(Operand::Text(text))) => Some(vec![value(text)]),
        Ask::Value(Op::In(texts)) => {
            let mut all: Vec<&str> = texts.iter().map(|text| &**text).collect();
            all.sort_unstable();
            all.dedup();
            Some(all.into_iter().map(value).collect())
        }
        Ask::OneOf(texts) if texts.len() <= MOST_ANCHORS => Some(texts.iter().map(|text| value(text)).collect()),
        Ask::Value(Op::Under(prefix)) if *field == Field::Path && prefix.starts_with('/') => {
            Some(vec![Anchor::Under(prefix.as_bytes().into())])
        }
        _ => None,
    }
}
