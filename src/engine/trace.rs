//! The trace of a decision: a no-op on the live path, a recorder for `explain`.
//!
//! Callers ask `T::ENABLED` before they compute anything that only a trace wants, so the no-op costs nothing.

pub mod recorder;

use super::balance::PassedOver;
use super::expr::ast::Field;
use super::route::hosts::Claim;
use super::route::reader::Reader;
use super::route::split::Drawn;
use super::route::{Decision, RouterFile, RuleIdx, Split};
use super::snapshot::EndpointIdx;
use super::table::{Level, Pool};
pub use recorder::Recorder;

/// Takes note of how a decision came about. Rule-level notes are `decide`'s, pool-level ones `pick`'s.
pub trait Trace {
    /// Whether notes are wanted at all.
    const ENABLED: bool;

    /// One step of `decide`.
    fn note(&mut self, _note: Note<'_>) {}

    /// One rule, in written order. `tried`: no earlier one matched; `holds`: this one did. The reader still reads the
    /// request, so that the recorder can find the term that failed.
    fn rule(&mut self, _file: &RouterFile, _rule: RuleIdx, _tried: bool, _holds: bool, _reader: &mut Reader<'_, '_>) {}

    /// This pool is picked from: its counts, levels with loads, candidates.
    fn pool(&mut self, _pool: &Pool) {}

    /// This level was drawn, or comes next because the one before proved empty.
    fn level(&mut self, _level: &Level) {}

    /// This endpoint was drawn, but does not get the request.
    fn passed_over(&mut self, _endpoint: EndpointIdx, _why: PassedOver) {}

    /// Two were compared by requests in flight and, with `ewma`, by moving cost in microseconds.
    fn compared(
        &mut self,
        _a: EndpointIdx,
        _b: EndpointIdx,
        _in_flight: [u32; 2],
        _costs: Option<[u64; 2]>,
        _chosen: EndpointIdx,
    ) {
    }

    /// A key's hash fell at this entry of a Maglev table of that size; hashed again so often, beyond 8 by walking on.
    fn placed(&mut self, _hash: u64, _entry: usize, _size: usize, _again: u32) {}

    /// The request took the permit to prove this endpoint.
    fn probe(&mut self, _endpoint: EndpointIdx) {}
}

/// What `decide` has found out.
#[derive(Clone, Copy, Debug)]
pub enum Note<'n> {
    /// The file that claims host and path.
    Claim(Option<Claim<'n>>),
    /// A request label.
    Label {
        /// Its name.
        name: &'n str,
        /// Its value, if the request has one.
        value: Option<&'n [u8]>,
    },
    /// The arms that a split drew.
    Split {
        /// The split.
        split: &'n Split,
        /// What it drew.
        drawn: &'n Drawn,
        /// The key field that decided, as written, and its value.
        key: Option<(&'n str, &'n [u8])>,
    },
    /// A key field of `hash(KEY)`.
    HashKey {
        /// Its slot among the file's fields.
        field: u32,
        /// What is read.
        name: &'n Field,
        /// Its value; `None`: the request does not have it.
        value: Option<&'n [u8]>,
    },
    /// The end.
    Decided(&'n Decision),
}

/// No notes: the live path.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    const ENABLED: bool = false;
}
