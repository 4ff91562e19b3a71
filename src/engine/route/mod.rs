//! Routing: rule set to router (as used); request to decision.
//!
//! In reading order: [`router`] (what a rule set becomes), [`decide`] (what a request gets), and what they stand on.

pub mod decision;
pub mod resolved;
pub mod router;

pub use decision::{Choice, Decision, Detail, Mint, Outcome, Step};
pub use resolved::{PoolState, Resolved};
pub use router::{
    Action, Arm, ArmIdx, FileIdx, PoolSlot, Router, RouterFile, RouterPool, RouterRule, RuleIdx, RulePolicies, Split,
};
