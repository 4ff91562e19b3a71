//! A rule's condition as used: fields are slots, patterns are numbers in a set.

use regex_automata::PatternID;
use rustc_hash::FxHashSet;

use super::reader::Reader;
use super::split;
use crate::engine::expr::ast::{Field, Op};
use crate::engine::expr::eval;
use crate::engine::label::Text;
use crate::engine::policy::WHOLE;

/// The same shape as the expression it was made of.
#[derive(Debug)]
pub enum Condition {
    /// No `when`.
    Always,
    /// Any of them.
    Or(Vec<Self>),
    /// All of them.
    And(Vec<Self>),
    /// Not it.
    Not(Box<Self>),
    /// One test on one field.
    Test {
        /// The field.
        slot: u32,
        /// What is asked.
        ask: Ask,
        /// Exactly the negation.
        negated: bool,
    },
    /// A stable share.
    Percent {
        /// First present and non-empty wins.
        key: Vec<u32>,
        /// The enclosing rule's.
        salt: Text,
        /// Outside the share.
        at_least: bool,
        /// Parts per million.
        share: u32,
    },
}

/// What a test asks.
#[derive(Debug)]
pub enum Ask {
    /// What the value alone answers.
    Value(Op),
    /// One of many texts; a list of users may have a hundred thousand.
    OneOf(FxHashSet<Text>),
    /// A pattern of a set.
    Pattern {
        /// Place in `Fields::patterns`.
        set: u32,
        /// Number in the set.
        id: PatternID,
    },
}

impl Condition {
    /// Whether the request meets it. A field that is missing makes a positive test false and a negated one true.
    pub fn holds(&self, reader: &mut Reader<'_, '_>) -> bool {
        match self {
            Self::Always => true,
            Self::Or(parts) => parts.iter().any(|part| part.holds(reader)),
            Self::And(parts) => parts.iter().all(|part| part.holds(reader)),
            Self::Not(part) => !part.holds(reader),
            Self::Test { slot, ask: Ask::Value(op), negated } => test(reader, *slot, op) != *negated,
            Self::Test { slot, ask: Ask::OneOf(texts), negated } => {
                let text = reader.value(*slot).and_then(|value| std::str::from_utf8(value).ok());
                text.is_some_and(|text| texts.contains(text)) != *negated
            }
            Self::Test { ask: Ask::Pattern { set, id }, negated, .. } => reader.matches(*set, *id) != *negated,
            Self::Percent { key, salt, at_least, share } => match split::keyed_hash(reader, key, salt) {
                Some(hash) => (split::scaled(hash, u64::from(WHOLE)) < u64::from(*share)) != *at_least,
                None => false,
            },
        }
    }
}

fn test(reader: &mut Reader<'_, '_>, slot: u32, op: &Op) -> bool {
    match (&reader.fields.slots[slot as usize].field, op) {
        (Field::TlsClientSan, op) => eval::test_list(op, reader.request.san.iter().map(String::as_str)),
        (Field::ClientIp, Op::Exists | Op::InNetworks(_)) => eval::test_address(op, reader.request.client),
        (_, op) => reader.value(slot).is_some_and(|value| eval::test_text(op, value)),
    }
}
