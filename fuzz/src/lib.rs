//! What `cargo fuzz` runs, and `tests/fuzz_smoke.rs` over seeded mutations.
#![allow(clippy::unwrap_used)]

pub mod targets;
