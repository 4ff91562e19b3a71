//! Against a real Consul (`$POINTSMAN_CONSUL`, one on the PATH, or what `scripts/consul.sh` fetches). Where there is none
//! these tests fail and say what to do; they are never skipped.

mod proxy;
#[path = "../support/real_consul.rs"]
mod real_consul;
#[path = "../support/subscriber.rs"]
mod subscriber;
mod subscription;
#[path = "../support/mod.rs"]
mod support;
