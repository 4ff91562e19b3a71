//! Rule files: text to [`RuleSet`] (as written), with every problem of every file collected.

pub mod ruleset;

pub use ruleset::*;
