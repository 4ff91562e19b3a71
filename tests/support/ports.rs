//! Ports at which nobody listens.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that a system gives to whoever connects or asks for any: a free one of those may be somebody's a
/// moment later.
const ALL: Range<u32> = 10_000..30_000;

/// An address of loopback at which nobody listens, and nobody will but for whom it was asked: never the same twice in a
/// process. Processes begin at different ones.
pub fn unused() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let spread = std::process::id().wrapping_mul(2_654_435_761);
    for _ in ALL {
        let at = spread.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (ALL.end - ALL.start);
        let port = u16::try_from(ALL.start + at).expect("it is below 65536");
        // Nobody connects to it, so nothing lingers there when it is let go.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().expect("it is bound");
        }
    }
    panic!("every port of {ALL:?} is taken");
}
