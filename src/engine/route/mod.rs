//! Routing: rule set to router (as used); request to decision.
//!
//! In reading order: [`router`] (what a rule set becomes), [`decide()`] (what a request gets), [`resort`] (what happens
//! when a pool has nobody), and what they stand on.

pub mod condition;
pub mod cookie;
pub mod decide;
pub mod decision;
pub mod host;
pub mod hosts;
pub mod index;
pub mod limit_key;
pub mod message;
pub mod path;
pub mod patterns;
pub mod propagate;
pub mod reader;
pub mod resolved;
pub mod resort;
pub mod router;
pub mod scratch;
pub mod split;
pub mod spread;
pub mod visited;

mod compile;
mod expand;
mod lower;
#[cfg(test)]
mod tests;

pub use decide::decide;
pub use decision::{Choice, Decision, Detail, Mint, Outcome, Step};
pub use limit_key::limit_key;
pub use message::{Change, Edit, Edits, Messages, Values};
pub use reader::Reader;
pub use resolved::{PoolState, Resolved};
pub use resort::{after_empty, next_choice, reached};
pub use router::{
    Action, Arm, ArmIdx, FileIdx, PoolSlot, Router, RouterFile, RouterPool, RouterRule, RuleIdx, RulePolicies, Split,
};
pub use scratch::Scratch;
pub use spread::{Part, Shape, Spread, spread, spread_of_keys};
