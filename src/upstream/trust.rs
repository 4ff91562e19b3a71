//! TLS towards instances: what is believed and shown, read from files on the control plane, used by every worker.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use tokio::sync::Notify;

use crate::engine::policy::Protocol;
use crate::engine::upstream::UpstreamTls;
use crate::tls_files::{self, ClientFiles};

/// One way of TLS towards instances.
#[derive(Debug)]
pub struct Trust {
    /// As written.
    pub tls: UpstreamTls,
    /// `None`: its files have never been good.
    configs: ArcSwapOption<Configs>,
}

/// The same but for what is offered (ALPN): nothing else is agreed to than what will be spoken.
#[derive(Debug)]
struct Configs {
    http1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

/// All ways that rules have named, until they are forgotten, and those that a label has made necessary.
#[derive(Debug, Default)]
pub struct Trusts {
    known: Mutex<HashMap<UpstreamTls, Arc<Trust>>>,
    /// Told when one is named for the first time.
    pub grew: Notify,
}

impl Trusts {
    /// The way that is written so. Not for the path of a request.
    pub fn of(&self, tls: &UpstreamTls) -> Arc<Trust> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trust) = known.get(tls) {
            return Arc::clone(trust);
        }
        let trust = Arc::new(Trust::new(tls.clone()));
        known.insert(tls.clone(), Arc::clone(&trust));
        self.grew.notify_one();
        trust
    }

    /// Whether it was named.
    pub fn knows(&self, tls: &UpstreamTls) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(tls)
    }

    /// A way that was read already, unless it is known.
    pub fn add(&self, trust: Arc<Trust>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(trust.tls.clone()).or_insert(trust);
        self.grew.notify_one();
    }

    /// Forgets every other way: its files are not followed any more. Connections that go by it stay.
    pub fn retain(&self, named: impl Fn(&UpstreamTls) -> bool) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|tls, _| named(tls));
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Trust>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Trust {
    /// A way whose files have not been read.
    #[must_use]
    pub fn new(tls: UpstreamTls) -> Self {
        Self { tls, configs: ArcSwapOption::empty() }
    }

    /// Reads the files (again). Connections from now on go by what they say.
    ///
    /// # Errors
    /// A file that cannot be used, by name; what was in force stays.
    pub fn load(&self) -> Result<(), String> {
        let path = |text: &'_ Option<_>| text.as_deref().map(|text: &str| Path::new(text).to_path_buf());
        let UpstreamTls { ca, cert, key, verify, name: _, name_label: _ } = &self.tls;
        let (ca, cert, key) = (path(ca), path(cert), path(key));
        let config = |alpn: &[&[u8]]| {
            let identity = (cert.as_deref(), key.as_deref());
            tls_files::client(ClientFiles { ca: ca.as_deref(), identity, verify: *verify, alpn })
        };
        let http1 = Arc::new(config(&[b"http/1.1"])?);
        let mut h2 = (*http1).clone();
        h2.alpn_protocols = vec![b"h2".to_vec()];
        self.configs.store(Some(Arc::new(Configs { http1, h2: Arc::new(h2) })));
        Ok(())
    }

    /// Whether its files have been good once.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.configs.load().is_some()
    }

    /// What a handshake for this protocol goes by.
    #[must_use]
    pub fn config(&self, protocol: Protocol) -> Option<Arc<ClientConfig>> {
        let configs = self.configs.load();
        configs.as_ref().map(|configs| match protocol {
            Protocol::Http1 => Arc::clone(&configs.http1),
            Protocol::H2 => Arc::clone(&configs.h2),
        })
    }

    /// Every file that is read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let UpstreamTls { ca, cert, key, .. } = &self.tls;
        [ca, cert, key].into_iter().flatten().map(|text| PathBuf::from(&**text)).collect()
    }
}
