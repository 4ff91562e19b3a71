//! Against a real Consul (`$CONSUL_FOR_TESTS`, one on the PATH, or what `scripts/consul.sh` fetches). Where there is none
//! these tests fail and say what to do; they are never skipped.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a failed test says so; processes are waited for")]

#[path = "../support/ports.rs"]
mod ports;
mod proxy;
#[path = "../support/real_consul.rs"]
mod real_consul;
#[path = "../support/subscriber.rs"]
mod subscriber;
mod subscription;
#[path = "../support/mod.rs"]
mod support;
