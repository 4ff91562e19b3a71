//! The fuzz targets, each a plain function that panics when something is wrong. `cargo fuzz` runs them from
//! `fuzz/fuzz_targets`, and `tests/fuzz_smoke.rs` over the corpus and 10,000 mutations on the stable toolchain.

mod catalogs;
mod client_hellos;
mod expressions;
mod indexes;
mod paths;
mod proxy_heads;
pub mod request;
mod rules;
pub mod strict;
mod traffic;

pub use catalogs::{catalog_file, consul_answer};
pub use client_hellos::client_hello;
pub use expressions::expression;
pub use indexes::consul_index;
pub use paths::path;
pub use proxy_heads::proxy_head;
pub use request::request;
pub use rules::rule_file;
pub use traffic::traffic;

/// A target and its name, which is that of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets but `request`, which needs sockets and is run many at a time.
pub const PURE: &[Target] = &[
    ("expression", expression),
    ("rule_file", rule_file),
    ("consul_answer", consul_answer),
    ("consul_index", consul_index),
    ("catalog_file", catalog_file),
    ("client_hello", client_hello),
    ("path", path),
    ("proxy_head", proxy_head),
    ("traffic", traffic),
];
