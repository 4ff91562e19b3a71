//! Which files a listener's TLS is made of, and what it agrees to.

use std::path::PathBuf;

/// A listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// At least one; the first is for clients that ask for no name, or for one that none of them has.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients are asked for certificates. Default no.
    pub client: Option<ClientAuth>,
    /// Versions that are agreed to. Default both.
    pub versions: Vec<Version>,
    /// Application protocols, best first. Empty: ALPN is not answered.
    pub alpn: Vec<Offered>,
    /// Whether a request for a host that the certificate does not cover is refused with 421. Default yes.
    pub check_authority: bool,
}

/// One certificate's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, PEM, the end entity's first.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// An OCSP response to staple, DER. One that cannot be used is left out.
    pub ocsp: Option<PathBuf>,
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whose certificates are believed, PEM.
    pub ca: PathBuf,
    /// Whether a client without one is refused.
    pub required: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// An application protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// `h2`
    H2,
    /// `http/1.1`
    Http1,
}

impl Offered {
    /// As it is named in ALPN.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

impl TlsSettings {
    /// These certificates, and defaults.
    #[must_use]
    pub fn new(certificates: Vec<CertificateFiles>) -> Self {
        Self {
            certificates,
            client: None,
            versions: vec![Version::Tls12, Version::Tls13],
            alpn: vec![Offered::H2, Offered::Http1],
            check_authority: true,
        }
    }

    /// Every file that is read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let of = |files: &CertificateFiles| {
            [Some(files.cert.clone()), Some(files.key.clone()), files.ocsp.clone()].into_iter().flatten()
        };
        self.certificates.iter().flat_map(of).chain(self.client.iter().map(|client| client.ca.clone())).collect()
    }
}
