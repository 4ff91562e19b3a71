//! Publishing: the only writer of the table.
//!
//! Catalog states, rules and health transitions (an operator's word among them) come in; whole tables go out behind one pointer.
//! What arrives within one window of catalog changes is published together; rules and health do not wait for it.

pub mod candidate;
pub mod desk;
pub mod grace;
pub mod guard;
pub mod outliers;
pub mod publisher;
pub mod rules;
pub mod shadow;

pub use desk::{Desk, InForce, Order};
pub use publisher::{Inputs, NewRules, Published, Publisher};
