//! The expression language of RULES.md: one grammar for pools (over an instance) and conditions (over a request).

pub mod ast;
