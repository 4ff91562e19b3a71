//! Upstream: connections to the instances.

pub mod checks;
