//! Publishing: the only writer of the table.
//!
//! Catalog states, rules, health transitions and operators' actions come in; whole tables go out behind one pointer.
//! What arrives within one window of catalog changes is published together; rules and health do not wait for it.

pub mod grace;
pub mod publisher;
pub mod rules;

pub use publisher::{Action, Command, Inputs, Published, Publisher};
