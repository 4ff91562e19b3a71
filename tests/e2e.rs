//! The data plane end to end, over real sockets: scripted clients on one side, scripted instances on the other.
#![allow(clippy::unwrap_used)]

#[path = "e2e/agreement/mod.rs"]
mod agreement;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/bodies.rs"]
mod bodies;
#[path = "e2e/combined.rs"]
mod combined;
#[path = "e2e/drain.rs"]
mod drain;
#[path = "e2e/every_service.rs"]
mod every_service;
#[path = "e2e/fairness.rs"]
mod fairness;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/fields.rs"]
mod fields;
#[path = "e2e/grpc.rs"]
mod grpc;
#[path = "e2e/h2_clients.rs"]
mod h2_clients;
#[path = "e2e/h2_ends.rs"]
mod h2_ends;
#[path = "e2e/h2_instances.rs"]
mod h2_instances;
#[path = "e2e/h2_tunnels.rs"]
mod h2_tunnels;
#[path = "e2e/harness/mod.rs"]
mod harness;
#[path = "e2e/hedging.rs"]
mod hedging;
#[path = "e2e/hostile/mod.rs"]
mod hostile;
#[path = "e2e/limits.rs"]
mod limits;
#[path = "e2e/memory.rs"]
mod memory;
#[path = "e2e/messages.rs"]
mod messages;
#[path = "e2e/mirrors.rs"]
mod mirrors;
#[path = "e2e/overload.rs"]
mod overload;
#[path = "e2e/passthrough.rs"]
mod passthrough;
#[path = "support/ports.rs"]
mod ports;
#[path = "e2e/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "e2e/queues.rs"]
mod queues;
#[path = "e2e/replays.rs"]
mod replays;
#[path = "e2e/tables.rs"]
mod tables;
#[path = "e2e/tls.rs"]
mod tls;
#[path = "e2e/trailers.rs"]
mod trailers;
#[path = "e2e/tunnels.rs"]
mod tunnels;
#[path = "e2e/upstream_bounds.rs"]
mod upstream_bounds;
#[path = "e2e/upstream_tls.rs"]
mod upstream_tls;
#[path = "e2e/waits.rs"]
mod waits;
