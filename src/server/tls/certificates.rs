//! Which certificate a client is shown: by the exact name that it asks for, by a wildcard, else the first.

use std::sync::Arc;
use std::time::SystemTime;

use rustc_hash::FxHashMap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use crate::forward::authority::parent;

/// A listener's certificates.
#[derive(Debug)]
pub struct Certificates {
    /// In the order of the settings; never empty.
    all: Vec<Certificate>,
    /// By exact name; of two with the same name the first.
    exact: FxHashMap<Box<str>, usize>,
    /// By what follows `*.`.
    wildcards: FxHashMap<Box<str>, usize>,
}

impl Certificates {
    /// `None`: there are none.
    #[must_use]
    pub fn new(all: Vec<Certificate>) -> Option<Self> {
        if all.is_empty() {
            return None;
        }
        let (mut exact, mut wildcards) = (FxHashMap::default(), FxHashMap::default());
        for (at, certificate) in all.iter().enumerate() {
            for name in &certificate.names.exact {
                exact.entry(name.clone()).or_insert(at);
            }
            for name in &certificate.names.wildcards {
                wildcards.entry(name.clone()).or_insert(at);
            }
        }
        Some(Self { all, exact, wildcards })
    }

    /// The certificate for a name in lower case; the first for none and for one that nobody has.
    #[must_use]
    pub fn choose(&self, name: Option<&str>) -> &Certificate {
        let exact = name.and_then(|name| self.exact.get(name));
        let found = exact.or_else(|| name.and_then(parent).and_then(|parent| self.wildcards.get(parent)));
        &self.all[found.copied().unwrap_or(0)]
    }

    /// All of them, in the order of the settings.
    #[must_use]
    pub fn all(&self) -> &[Certificate] {
        &self.all
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives names in lower case.
        Some(Arc::clone(self.choose(hello.server_name()).shown(SystemTime::now())))
    }
}
