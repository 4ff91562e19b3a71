//! The label index of one service: for each key its values, for each value the instances that have it.
//!
//! What has few values (labels, tags, status, dc) is inverted; what differs for every instance (id, node, address,
//! port) is not, and is answered by a scan.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Bitset, Endpoint};
use crate::engine::expr::ast::{Builtin, Field};
use crate::engine::instance::{Instance, Status};
use crate::engine::label::Text;

/// Inverted postings over the instances of one service, by their index.
#[derive(Debug, Default)]
pub struct LabelIndex {
    len: usize,
    /// Sorted by key.
    labels: Box<[(Text, Column)]>,
    tags: Column,
    dc: Column,
    statuses: [Box<[u32]>; 4],
}

/// One key: its values in order, and where each one's postings end in the common list.
#[derive(Debug, Default)]
struct Column {
    values: Vec<(Text, u32)>,
    postings: Vec<u32>,
}

/// A value and who has it.
type Row<'t> = (&'t Text, u32);

impl LabelIndex {
    /// Indexes the instances; theirs is the index in the slice.
    #[must_use]
    pub fn build<'i>(instances: impl ExactSizeIterator<Item = &'i Arc<Instance>>) -> Self {
        let len = instances.len();
        let mut labels: Vec<(&Text, Vec<Row<'i>>)> = Vec::new();
        let (mut tags, mut dcs) = (Vec::new(), Vec::new());
        let mut statuses = [const { Vec::new() }; 4];
        for (at, instance) in instances.enumerate() {
            let at = at as u32;
            // Both sides are sorted by key, and most instances of a service have the same keys.
            let mut place = 0;
            for (key, value) in instance.labels.iter() {
                while labels.get(place).is_some_and(|(other, _)| *other < key) {
                    place += 1;
                }
                if labels.get(place).is_none_or(|(other, _)| *other != key) {
                    labels.insert(place, (key, Vec::new()));
                }
                labels[place].1.push((value, at));
            }
            let distinct = instance.tags.iter().enumerate().filter(|(n, tag)| !instance.tags[..*n].contains(tag));
            tags.extend(distinct.map(|(_, tag)| (tag, at)));
            if !instance.dc.is_empty() {
                dcs.push((&instance.dc, at));
            }
            statuses[instance.status as usize].push(at);
        }
        let mut ids = FxHashMap::default();
        let mut column = |rows: &[Row<'i>]| Column::build(rows, &mut ids);
        Self {
            len,
            labels: labels.iter().map(|(key, rows)| (Arc::clone(key), column(rows))).collect(),
            tags: column(&tags),
            dc: column(&dcs),
            statuses: statuses.map(Vec::into_boxed_slice),
        }
    }

    /// How many instances it is about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is about nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Label keys with the number of instances that have each; for `lint` and completion.
    pub fn keys(&self) -> impl Iterator<Item = (&Text, usize)> {
        self.labels.iter().map(|(key, column)| (key, column.postings.len()))
    }

    /// The distinct values of an indexed field with the number of instances of each, in order. `None`: not indexed.
    pub fn values(&self, field: &Field) -> Option<impl Iterator<Item = (&str, usize)>> {
        self.column(field).map(|column| column.iter().map(|(value, postings)| (value, postings.len())))
    }

    /// Those that have the field: a non-empty `dc`, at least one tag, the label even if empty.
    #[must_use]
    pub fn present(&self, field: &Field, endpoints: &[Endpoint]) -> Bitset {
        self.having(field, endpoints, |_| true)
    }

    /// Those with a value of the field for which `holds` is true. A distinct value is asked once.
    #[must_use]
    pub fn having(&self, field: &Field, endpoints: &[Endpoint], mut holds: impl FnMut(&str) -> bool) -> Bitset {
        let mut set = Bitset::none(self.len);
        if let Field::Builtin(Builtin::Status) = field {
            for status in Status::ALL.into_iter().filter(|status| holds(status.word())) {
                self.statuses[status as usize].iter().for_each(|at| set.insert(*at));
            }
        } else if let Some(column) = self.column(field) {
            for (_, postings) in column.iter().filter(|(value, _)| holds(value)) {
                postings.iter().for_each(|at| set.insert(*at));
            }
        } else if let Field::Builtin(builtin) = field {
            let mut buffer = String::new();
            for (at, endpoint) in endpoints.iter().enumerate() {
                if scanned(&endpoint.instance, *builtin, &mut buffer).is_some_and(&mut holds) {
                    set.insert(at as u32);
                }
            }
        }
        set
    }

    /// Those with exactly this value.
    #[must_use]
    pub fn equal(&self, field: &Field, endpoints: &[Endpoint], wanted: &str) -> Bitset {
        let Some(column) = self.column(field) else {
            return self.having(field, endpoints, |value| value == wanted);
        };
        let mut set = Bitset::none(self.len);
        column.postings_of(wanted).iter().for_each(|at| set.insert(*at));
        set
    }

    fn column(&self, field: &Field) -> Option<&Column> {
        static EMPTY: Column = Column { values: Vec::new(), postings: Vec::new() };
        match field {
            Field::Label(key) => {
                let at = self.labels.binary_search_by(|(other, _)| other.cmp(key));
                Some(at.map_or(&EMPTY, |at| &self.labels[at].1))
            }
            Field::Builtin(Builtin::Tags) => Some(&self.tags),
            Field::Builtin(Builtin::Dc) => Some(&self.dc),
            _ => None,
        }
    }
}

impl Column {
    /// From rows in order of the index. Only distinct values are sorted; rows are counted into place. `ids` is scratch.
    fn build<'t>(rows: &[Row<'t>], ids: &mut FxHashMap<&'t str, u32>) -> Self {
        ids.clear();
        let mut distinct: Vec<(&Text, u32)> = Vec::new();
        let mut id_of = Vec::with_capacity(rows.len());
        for (value, _) in rows {
            let id = *ids.entry(value).or_insert(distinct.len() as u32);
            if id as usize == distinct.len() {
                distinct.push((value, id));
            }
            id_of.push(id);
        }
        distinct.sort_unstable();
        let mut starts = vec![0u32; distinct.len()];
        id_of.iter().for_each(|id| starts[*id as usize] += 1);
        let mut end = 0;
        let mut values = Vec::with_capacity(distinct.len());
        for (value, id) in distinct {
            let start = end;
            end += std::mem::replace(&mut starts[id as usize], start);
            values.push((Arc::clone(value), end));
        }
        let mut postings = vec![0; rows.len()];
        for ((_, at), id) in rows.iter().zip(id_of) {
            let next = &mut starts[id as usize];
            postings[*next as usize] = *at;
            *next += 1;
        }
        Self { values, postings }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &[u32])> {
        self.values.iter().enumerate().map(|(at, (value, _))| (&**value, self.slice(at)))
    }

    fn postings_of(&self, wanted: &str) -> &[u32] {
        self.values.binary_search_by(|(value, _)| (**value).cmp(wanted)).map_or(&[], |at| self.slice(at))
    }

    fn slice(&self, at: usize) -> &[u32] {
        let start = if at == 0 { 0 } else { self.values[at - 1].1 };
        &self.postings[start as usize..self.values[at].1 as usize]
    }
}

/// The value of a built-in that is not indexed; an empty node is none.
fn scanned<'a>(instance: &'a Instance, builtin: Builtin, buffer: &'a mut String) -> Option<&'a str> {
    match builtin {
        Builtin::Id => Some(&instance.id),
        Builtin::Address => Some(&instance.host),
        Builtin::Node => Some(&*instance.node).filter(|node| !node.is_empty()),
        Builtin::Port => {
            use std::fmt::Write as _;
            buffer.clear();
            let _ = write!(buffer, "{}", instance.addr.port());
            Some(buffer)
        }
        Builtin::Tags | Builtin::Dc | Builtin::Status => None,
    }
}
