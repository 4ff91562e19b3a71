//! The catalog sources against a scripted Consul and real files, over real sockets on loopback.

mod consul_doubt;
mod consul_live;
mod file;
#[path = "../support/front.rs"]
mod front;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/scripted_consul/mod.rs"]
mod scripted_consul;
#[path = "../support/subscriber.rs"]
mod subscriber;
mod transport;
