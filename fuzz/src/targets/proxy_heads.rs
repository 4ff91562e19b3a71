//! The PROXY protocol's head: a reader that is fed as it asks for it never asks for a byte behind the head, and says the
//! same however the bytes are cut.

use pointsman::server::proxy_protocol::{Step, step};

/// The longest head that is taken: version 2's.
const MOST: usize = 8 * 1024;

/// Reads the beginning of a connection.
pub fn proxy_head(bytes: &[u8]) {
    let mut at = 0;
    let end = loop {
        match step(&bytes[..at]) {
            Ok(Step::More(more)) => {
                assert!(more > 0, "it asks for something");
                at += more;
                assert!(at <= MOST, "a head has an end");
                if at > bytes.len() {
                    return;
                }
            }
            Ok(end) => break end,
            Err(_) => return,
        }
    };
    assert_eq!(step(&bytes[..at]), Ok(end), "the same every time");
    if bytes.starts_with(b"PROXY ") {
        assert!(bytes[..at].ends_with(b"\r\n") && at <= 107, "a line of version 1: {at}");
    }
}
