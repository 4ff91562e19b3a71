//! What a rule changes in a message on its way: header edits and the rewritten target, compiled. Nothing when off.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::reader::Reader;
use super::router::{PoolSlot, Router};
use crate::engine::label::Text;
use crate::engine::policy::WHOLE;
use crate::engine::request::RequestView;
use crate::engine::rules::Limit;
use crate::engine::time::Draw;

/// The parts in force for a rule; an object of the rule replaces the file's whole.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// Header edits.
    pub headers: Option<Arc<Edits>>,
    /// Where the request goes at the instance.
    pub rewrite: Option<Arc<Rewrite>>,
    /// Copies.
    pub mirror: Option<Mirror>,
    /// Local limits.
    pub limit: Option<Limit>,
}

/// Copies of requests for another pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The pool, as compiled.
    pub pool: PoolSlot,
    /// How many requests are copied, parts per million.
    pub share: u32,
}

impl Mirror {
    /// Whether the request with this luck is copied.
    #[must_use]
    pub fn takes(self, draw: Draw) -> bool {
        draw.fork(Draw::MIRROR).below(u64::from(WHOLE)) < u64::from(self.share)
    }
}

/// Header edits in both directions.
#[derive(Debug, Default)]
pub struct Edits {
    /// Towards the instance.
    pub request: Edit,
    /// Towards the client.
    pub response: Edit,
    /// How many values are read from the request.
    pub(super) reads: usize,
}

/// One direction's edits, applied in this order: remove, set, add.
#[derive(Debug, Default)]
pub struct Edit {
    pub(super) remove: Vec<HeaderName>,
    pub(super) set: Vec<(HeaderName, Value)>,
    pub(super) add: Vec<(HeaderName, Value)>,
}

/// A value to set.
#[derive(Debug)]
pub(super) enum Value {
    /// The same for every request.
    Fixed(HeaderValue),
    /// Put together from the request; `at` is its place in [`Values`].
    Read { at: usize, pieces: Box<[Piece]> },
}

/// A piece of a value.
#[derive(Debug)]
pub(super) enum Piece {
    Text(Text),
    Slot(u32),
}

/// What the edits of one request read from it. `None`: the request has nothing of it, or what cannot stand in a field.
pub type Values = SmallVec<[Option<HeaderValue>; 2]>;

/// One edit of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'e> {
    /// All fields of this name go; also where the value to set has nothing to be made of.
    Remove(&'e HeaderName),
    /// This value in place of what is there.
    Set(&'e HeaderName, &'e HeaderValue),
    /// This value beside what is there.
    Add(&'e HeaderName, &'e HeaderValue),
}

impl Edits {
    /// Reads what the values need. Allocates nothing when every value is fixed.
    #[must_use]
    pub fn read(&self, reader: &mut Reader<'_, '_>) -> Values {
        let mut values = Values::new();
        if self.reads == 0 {
            return values;
        }
        for (_, value) in [&self.request, &self.response].into_iter().flat_map(|edit| edit.set.iter().chain(&edit.add))
        {
            if let Value::Read { pieces, .. } = value {
                values.push(put_together(pieces, reader));
            }
        }
        values
    }
}

/// The value with its fields filled in; `None` when no field has anything, or the whole cannot stand in a header.
fn put_together(pieces: &[Piece], reader: &mut Reader<'_, '_>) -> Option<HeaderValue> {
    let mut out = Vec::new();
    let mut found = false;
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Slot(slot) => {
                let value = reader.nonempty(*slot).unwrap_or_default();
                found |= !value.is_empty();
                out.extend_from_slice(value);
            }
        }
    }
    if found { HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).ok() } else { None }
}

impl Edit {
    /// Every change in the order in which it is made.
    pub fn changes<'e>(&'e self, values: &'e Values) -> impl Iterator<Item = Change<'e>> {
        let value = |value: &'e Value| match value {
            Value::Fixed(value) => Some(value),
            Value::Read { at, .. } => values.get(*at).and_then(Option::as_ref),
        };
        let first = |at: usize| !self.set[..at].iter().any(|(name, _)| *name == self.set[at].0);
        let remove = self.remove.iter().map(Change::Remove);
        let set =
            self.set.iter().enumerate().filter_map(move |(at, (name, written))| match (value(written), first(at)) {
                (Some(value), true) => Some(Change::Set(name, value)),
                (Some(value), false) => Some(Change::Add(name, value)),
                (None, true) => Some(Change::Remove(name)),
                (None, false) => None,
            });
        let add = self.add.iter().filter_map(move |(name, written)| Some(Change::Add(name, value(written)?)));
        remove.chain(set).chain(add)
    }

    /// The fields that are removed, set or added to.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter().chain(self.set.iter().chain(&self.add).map(|(name, _)| name))
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap, values: &Values) {
        for change in self.changes(values) {
            match change {
                Change::Remove(name) => {
                    headers.remove(name);
                }
                Change::Set(name, value) => {
                    headers.insert(name, value.clone());
                }
                Change::Add(name, value) => {
                    headers.append(name, value.clone());
                }
            }
        }
    }
}

/// Where a request goes at the instance, in place of where the client asked for.
#[derive(Debug, Default)]
pub struct Rewrite {
    /// The beginning of a path, and what it becomes.
    pub path: Option<Prefix>,
    /// The Host.
    pub host: Option<HeaderValue>,
}

/// A beginning of a path, by segment, and what stands in its place.
#[derive(Debug)]
pub struct Prefix {
    /// As the rule's `path under …` names it; `None`: the path by which the file claims the request.
    pub from: Option<Text>,
    /// What it becomes.
    pub to: Text,
}

impl Prefix {
    /// A request's new path. `None`: it does not begin so, which no request of this rule does.
    #[must_use]
    pub fn replaced(&self, router: &Router, request: &RequestView<'_>) -> Option<String> {
        let from = match &self.from {
            Some(from) => from,
            None => router.hosts.find(request.host, request.path)?.path,
        };
        replaced(from, request.path, &self.to)
    }
}

/// `path` with `to` in place of `from` at its beginning; exactly one slash where they meet.
fn replaced(from: &str, path: &str, to: &str) -> Option<String> {
    let rest = path.strip_prefix(from.trim_end_matches('/'))?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(format!("{}/{rest}", to.trim_end_matches('/'))),
        None if rest.is_empty() => Some(to.to_owned()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_replaced_by_segment_and_slashes_meet_once() {
        for (from, path, to, expected) in [
            ("/cart", "/cart", "/", Some("/")),
            ("/cart", "/cart/", "/", Some("/")),
            ("/cart", "/cart/7", "/", Some("/7")),
            ("/cart", "/cart/7/x", "/api/v2", Some("/api/v2/7/x")),
            ("/cart", "/cart/7", "/api/", Some("/api/7")),
            ("/cart", "/cart", "/api/", Some("/api/")),
            ("/", "/", "/api", Some("/api/")),
            ("/", "/x", "/api", Some("/api/x")),
            ("/cart/", "/cart/7", "/a", Some("/a/7")),
            ("/cart", "/cartoon", "/a", None),
        ] {
            assert_eq!(replaced(from, path, to).as_deref(), expected, "{from} {path} {to}");
        }
    }

    #[test]
    fn edits_are_made_in_order_and_a_value_of_nothing_takes_away_what_was_there() {
        let (a, b, c) = (HeaderName::from_static("a"), HeaderName::from_static("b"), HeaderName::from_static("c"));
        let fixed = |text| Value::Fixed(HeaderValue::from_static(text));
        let edit = Edit {
            remove: vec![a.clone()],
            set: vec![
                (b.clone(), fixed("1")),
                (b.clone(), fixed("2")),
                (c.clone(), Value::Read { at: 0, pieces: Box::default() }),
            ],
            add: vec![
                (a, fixed("new")),
                (b, Value::Read { at: 1, pieces: Box::default() }),
                (c, Value::Read { at: 0, pieces: Box::default() }),
            ],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "old"), ("b", "old"), ("b", "older"), ("c", "old"), ("d", "kept")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        edit.apply(&mut headers, &Values::from_vec(vec![None, Some(HeaderValue::from_static("3"))]));
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(",");
        assert_eq!((all("a"), all("b"), all("c"), all("d")), ("new".into(), "1,2,3".into(), "".into(), "kept".into()));
    }
}
