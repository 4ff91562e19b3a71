//! The shape of a rule file for editors, as JSON Schema 2020-12.
//!
//! It knows keys, kinds and units. What needs the whole file (names that must exist, sums, expressions) is the
//! parser's alone; so a file that the schema takes may still be wrong, and never the other way round.

/// The schema's text, with a line feed at its end.
pub const SCHEMA: &str = include_str!("schema.json");
