//! A TLS client's greeting: a reader that is fed as it asks for it never asks for a byte behind the greeting nor looks often,
//! and hears the name that rustls hears.

use std::io::Cursor;
use std::sync::Arc;

use pointsman::server::client_hello::{MOST, Step, step};

/// More looks than any way to cut a greeting of that size can cost.
const LOOKS: usize = 200;

/// Reads the beginning of a connection.
pub fn client_hello(bytes: &[u8]) {
    let (mut at, mut looks) = (0, 0);
    let name = loop {
        looks += 1;
        assert!(looks < LOOKS, "{at} bytes");
        match step(&bytes[..at]) {
            Ok(Step::More(more)) => {
                assert!(more > 0, "it asks for something");
                at += more;
                assert!(at <= MOST, "a greeting has an end");
                if at > bytes.len() {
                    return;
                }
            }
            Ok(Step::Asks(name)) => break name,
            Err(_) => {
                assert!(step(bytes).is_err(), "what is refused stays refused");
                return;
            }
        }
    };
    assert_eq!(step(bytes), Ok(Step::Asks(name.clone())), "whatever comes behind");
    if let Some(name) = &name {
        assert!(!name.is_empty() && name.is_ascii() && !name.ends_with('.'), "{name}");
        assert_eq!(**name, *name.to_ascii_lowercase());
    }
    if let Some(theirs) = heard_by_rustls(&bytes[..at]) {
        assert_eq!(name, theirs, "one name for all");
    }
}

/// The name by rustls; `None`: it refuses the greeting, which it may, for it wants to answer it.
fn heard_by_rustls(greeting: &[u8]) -> Option<Option<Arc<str>>> {
    let (mut acceptor, mut unread) = (rustls::server::Acceptor::default(), Cursor::new(greeting));
    while (unread.position() as usize) < greeting.len() {
        acceptor.read_tls(&mut unread).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(|name| name.trim_end_matches('.').into()));
        }
    }
    None
}
