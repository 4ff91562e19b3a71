//! Reading a request's fields, each at most once, and only those that are asked for.

use std::io::Write as _;
use std::sync::Arc;

use regex_automata::{PatternID, PatternSet};

use super::cookie;
use super::path::hex;
use super::patterns::Patterns;
use super::scratch::{Located, Scratch};
use crate::engine::expr::ast::Field;
use crate::engine::label::Text;
use crate::engine::request::RequestView;

/// The fields of a file, interned: what its conditions, keys and labels read.
#[derive(Debug, Default)]
pub struct Fields {
    /// By slot.
    pub slots: Vec<Slot>,
    /// By label, in written order.
    pub labels: Vec<Label>,
    /// One for each field that is matched against patterns.
    pub patterns: Vec<Arc<Patterns>>,
}

/// One field.
#[derive(Debug)]
pub struct Slot {
    /// What is read.
    pub field: Field,
    /// Hidden when the peer may not send control headers.
    pub control: bool,
    /// For a request label: its place in [`Fields::labels`].
    pub label: u32,
}

/// A request label.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: Text,
    /// First present and non-empty wins.
    pub sources: Vec<Source>,
}

/// Where a label comes from.
#[derive(Debug)]
pub enum Source {
    /// A field.
    Slot(u32),
    /// A fixed value.
    Fixed(Text),
}

/// Reads one request by one file's fields.
pub struct Reader<'r, 's> {
    /// The request.
    pub request: &'r RequestView<'r>,
    /// What may be read of it.
    pub fields: &'r Fields,
    pub(super) scratch: &'s mut Scratch,
}

impl<'r, 's> Reader<'r, 's> {
    /// Starts a request: forgets what the scratch knew of the last one.
    pub fn begin(request: &'r RequestView<'r>, fields: &'r Fields, scratch: &'s mut Scratch) -> Self {
        scratch.begin(fields.slots.len());
        Self { request, fields, scratch }
    }

    /// Goes on with a request that was begun (and decided) with the same scratch.
    pub fn resume(request: &'r RequestView<'r>, fields: &'r Fields, scratch: &'s mut Scratch) -> Self {
        Self { request, fields, scratch }
    }

    /// The value of a field; `None`: the request does not have it. Of a list, its first element.
    pub fn value(&mut self, slot: u32) -> Option<&[u8]> {
        let fields: &'r Fields = self.fields;
        match &fields.slots[slot as usize].field {
            Field::Method => Some(self.request.method.as_str().as_bytes()),
            Field::Scheme => Some(self.request.scheme.as_bytes()),
            Field::Host => Some(self.request.host.as_bytes()),
            Field::Path => Some(self.request.path.as_bytes()),
            Field::TlsSni => self.request.sni.map(str::as_bytes),
            Field::TlsClientSan => self.request.san.first().map(String::as_bytes),
            field => {
                let located = match self.scratch.located[slot as usize] {
                    (stamp, located) if stamp == self.scratch.stamp() => located,
                    _ => self.locate(slot, field),
                };
                match located {
                    Located::Missing => None,
                    Located::Bytes { start, end } => Some(&self.scratch.bytes[start as usize..end as usize]),
                }
            }
        }
    }

    /// The value if it is present and not empty: what keys and labels want.
    pub fn nonempty(&mut self, slot: u32) -> Option<&[u8]> {
        self.value(slot).filter(|value| !value.is_empty())
    }

    /// The value of a request label, by its place in [`Fields::labels`].
    pub fn label(&mut self, label: u32) -> Option<&[u8]> {
        let fields: &'r Fields = self.fields;
        for source in &fields.labels[label as usize].sources {
            match source {
                Source::Fixed(text) => return Some(text.as_bytes()).filter(|text| !text.is_empty()),
                // Asked twice, because a borrow that is returned from a loop outlives it; the second time is a look-up.
                Source::Slot(slot) if self.nonempty(*slot).is_some() => return self.nonempty(*slot),
                Source::Slot(_) => {}
            }
        }
        None
    }

    /// Whether a pattern matches its field. The whole set is run the first time.
    pub fn matches(&mut self, set: u32, pattern: PatternID) -> bool {
        self.matched(set).contains(pattern)
    }

    /// The patterns of a set that match its field.
    pub fn matched(&mut self, set: u32) -> &PatternSet {
        let fields: &'r Fields = self.fields;
        let patterns: &'r Arc<Patterns> = &fields.patterns[set as usize];
        let stamp = self.scratch.stamp();
        if self.scratch.sets.len() <= patterns.index {
            self.scratch.sets.resize_with(patterns.index + 1, || None);
        }
        let fresh = self.scratch.sets[patterns.index].take().filter(|cache| Arc::ptr_eq(&cache.of, patterns));
        let mut cache = fresh.unwrap_or_else(|| Box::new(patterns.cache()));
        if cache.stamp != stamp {
            cache.stamp = stamp;
            cache.matched.clear();
            if matches!(fields.slots[patterns.slot as usize].field, Field::TlsClientSan) {
                self.request.san.iter().for_each(|san| Patterns::run(&mut cache, san.as_bytes()));
            } else if let Some(value) = self.value(patterns.slot) {
                Patterns::run(&mut cache, value);
            }
        }
        &self.scratch.sets[patterns.index].insert(cache).matched
    }

    /// Finds a field and copies its value, so that the scratch borrows nothing from the request.
    fn locate(&mut self, slot: u32, field: &Field) -> Located {
        let fields: &'r Fields = self.fields;
        let hidden = fields.slots[slot as usize].control && !self.request.trusted;
        let start = self.scratch.bytes.len();
        let found = match field {
            _ if hidden => false,
            Field::Header(name) => joined(self.request.headers, name, &mut self.scratch.bytes),
            Field::Cookie(name) => match cookie::find(self.request.headers, name) {
                Some(value) => {
                    self.scratch.bytes.extend_from_slice(value);
                    true
                }
                None => false,
            },
            Field::Query(name) => query(self.request.query.unwrap_or(""), name.as_bytes(), &mut self.scratch.bytes),
            Field::ClientIp => write!(self.scratch.bytes, "{}", self.request.client).is_ok(),
            Field::RequestLabel(_) => return self.locate_label(slot),
            _ => false,
        };
        self.keep(slot, found, start)
    }

    fn locate_label(&mut self, slot: u32) -> Located {
        let label = self.fields.slots[slot as usize].label;
        // Its source's value is in the scratch or in the request; the label gets a copy of its own.
        let value = self.label(label).map(smallvec::SmallVec::<[u8; 64]>::from_slice);
        let start = self.scratch.bytes.len();
        self.scratch.bytes.extend_from_slice(value.as_deref().unwrap_or_default());
        self.keep(slot, value.is_some(), start)
    }

    fn keep(&mut self, slot: u32, found: bool, start: usize) -> Located {
        let located = if found {
            Located::Bytes { start: start as u32, end: self.scratch.bytes.len() as u32 }
        } else {
            Located::Missing
        };
        self.scratch.located[slot as usize] = (self.scratch.stamp(), located);
        located
    }
}

/// Repeated fields are joined by a comma and a space.
fn joined(headers: &http::HeaderMap, name: &http::HeaderName, out: &mut Vec<u8>) -> bool {
    if headers.len() == headers.keys_len() {
        let value = headers.get(name);
        out.extend_from_slice(value.map_or(&[], |value| value.as_bytes()));
        return value.is_some();
    }
    let mut found = false;
    for value in headers.get_all(name) {
        if found {
            out.extend_from_slice(b", ");
        }
        found = true;
        out.extend_from_slice(value.as_bytes());
    }
    found
}

/// The first parameter of a name, decoded. A broken escape stays as it is.
fn query(query: &str, name: &[u8], out: &mut Vec<u8>) -> bool {
    for pair in query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        // A key without escapes decides on its first byte.
        let first = pair[0];
        if first != b'%' && first != b'+' && name.first() != Some(&first) && first != b'=' {
            continue;
        }
        let at = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = at.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        if decoded(key).eq(name.iter().copied()) {
            out.extend(decoded(value));
            return true;
        }
    }
    false
}

fn decoded(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        rest = tail;
        match (first, tail) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, after @ ..]) => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => {
                    rest = after;
                    Some(high * 16 + low)
                }
                None => Some(first),
            },
            _ => Some(first),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(text: &str, name: &str) -> Option<String> {
        let mut out = Vec::new();
        query(text, name.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_query_parameter_is_the_first_one_decoded() {
        assert_eq!(param("a=1&b=x%20y+z&b=2", "b").as_deref(), Some("x y z"));
        assert_eq!(param("a%5B0%5d=%c3%a9", "a[0]").as_deref(), Some("é"));
        assert_eq!(param("flag&x=", "flag").as_deref(), Some(""));
        assert_eq!(param("flag&x=", "x").as_deref(), Some(""));
        assert_eq!(param("x=%zz%4", "x").as_deref(), Some("%zz%4"));
        assert_eq!(param("x=1", "y"), None);
        assert_eq!(param("", ""), None);
    }
}
