//! Clients and servers that nobody here wrote, through the built binary: curl, openssl, h2load, nginx, grpcio and
//! `websockets`. `scripts/clients.sh` and `scripts/python.sh` find or fetch them; where one is missing the tests fail and
//! say what to do; they are never skipped.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a failed test says so; processes are waited for")]

#[path = "../support/front.rs"]
mod front;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod curl;
mod drain;
mod ground;
mod grpc;
mod h2load;
mod nginx;
mod openssl;
mod protocols;
mod tools;
mod websockets;
