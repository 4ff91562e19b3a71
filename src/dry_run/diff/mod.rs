//! `diff`: two tables under the same requests. What a key decides is compared by where it goes, what luck decides by its
//! probabilities, so there is no sampling noise.
//!
//! [`compare`] and [`Comparison::shift`] know nothing of files: the shadow and the guard use them over live requests.

mod keys;
mod report;
mod shift;
mod tally;
mod vector;
mod why;

use crate::engine::request::RequestView;
use crate::engine::route::{Decision, Scratch, Shape, decide};
use crate::engine::table::Table;
use crate::engine::time::Draw;
use crate::engine::trace::NoTrace;
pub use keys::KeySample;
pub use report::{Class, Load, Report};
pub use shift::{Move, Shift, Stop, WHOLE};
pub use tally::{Moves, Scene};
pub(super) use vector::shares;
pub use why::Why;

/// One request under two tables.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What the old one decided.
    pub old: Decision,
    /// What the new one decided.
    pub new: Decision,
}

/// The memory of two deciders; one each, because the tables' patterns differ.
#[derive(Debug, Default)]
pub struct Scratches {
    old: Scratch,
    new: Scratch,
}

/// Decides a request under both tables with the same luck. `request.trusted` is the old rules' word on the peer,
/// `trusted` the new rules'.
#[must_use]
pub fn compare(
    old: &Table,
    new: &Table,
    request: &RequestView<'_>,
    trusted: bool,
    draw: Draw,
    scratches: &mut Scratches,
) -> Comparison {
    let under_new = RequestView { trusted, ..*request };
    Comparison {
        old: decide(old, request, draw, &mut scratches.old, &mut NoTrace),
        new: decide(new, &under_new, draw, &mut scratches.new, &mut NoTrace),
    }
}

impl Comparison {
    /// What of it does not depend on luck: comparisons of the same tables with equal shapes have equal shifts, so a
    /// caller may keep them.
    #[must_use]
    pub fn shapes(&self) -> (Shape, Shape) {
        (self.old.shape(), self.new.shape())
    }

    /// Where this luck leads, before and after.
    #[must_use]
    pub fn stops(&self, old: &Table, new: &Table) -> (Stop, Stop) {
        (Stop::of(old, &self.old), Stop::of(new, &self.new))
    }

    /// How much of the request goes elsewhere, and why. Costs as much as there are instances in its pools.
    #[must_use]
    pub fn shift(&self, old: &Table, new: &Table) -> Shift {
        Shift::of((old, &self.old), (new, &self.new))
    }
}
