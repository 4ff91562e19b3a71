//! The built binary, end to end over real sockets: rules and catalogs that change under load, killed instances,
//! operators, drain, and that the dry run and the live proxy agree.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a failed test says so; processes are waited for")]

#[path = "../support/frames.rs"]
#[allow(dead_code, reason = "the tests of single frames use more of it")]
mod frames;
#[path = "../support/front.rs"]
mod front;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/scripted_consul/mod.rs"]
mod scripted_consul;
#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod bursts;
mod catalog_file;
mod certificates;
mod check_kinds;
mod checks;
mod debug_token;
mod demo;
mod descriptors;
mod drain;
mod faults;
mod fields;
mod fleet;
mod floods;
mod gray_release;
mod grpc_checks;
mod guard;
mod instances_tls;
mod killed_instance;
mod limits;
mod operators;
mod outliers;
mod panic;
mod passing_on;
mod paths;
mod probing;
mod regions;
mod rules_reload;
mod shadow;
mod slow_clients;
mod slow_start;
mod weights;
