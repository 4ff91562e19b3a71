//! The built binary, end to end over real sockets: rules and catalogs that change under load, operators, drain.

#[path = "../support/mod.rs"]
mod support;

mod catalog_file;
mod probing;
mod rules_reload;
