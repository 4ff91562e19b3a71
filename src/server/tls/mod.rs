//! TLS towards clients.
//!
//! In reading order: [`terminator`] is a listener's TLS, replaced as a whole when its files change; [`certificate`] is
//! one certificate with its names, [`ocsp`] what may be stapled to it, [`certificates`] chooses by the name that a client
//! asks for, [`settings`] says which files. [`socket`] is what a handshake reads from, [`transport`] an encrypted
//! connection as the server drives it.

pub mod certificate;
pub mod certificates;
pub mod ocsp;
pub mod settings;
pub mod socket;
pub mod terminator;
pub mod transport;

pub use settings::{CertificateFiles, ClientAuth, Offered, TlsSettings, Version};
pub use terminator::Terminator;
