//! What every source needs to be believed: what may vanish ([`keeper`], [`guard`]), what is published ([`picture`],
//! [`desk`], [`board`]), how often one asks ([`backoff`], [`limiter`]), and the copy on disk ([`disk`]).
//!
//! All but `disk` and `board` are pure: time and luck are arguments.
pub mod backoff;
pub mod board;
pub mod desk;
pub mod disk;
pub mod guard;
pub mod keeper;
pub mod limiter;
pub mod picture;
