//! A listener's TLS: what is in force, and how it is replaced when its files change.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::ring::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{Certificate, alternative_names};
use super::certificates::Certificates;
use super::settings::{ClientAuth, TlsSettings, Version};
use super::socket::ClientSocket;
use crate::forward::connection::Tls;
use crate::tls_files;

/// Encrypted bytes that may wait for one client: two records. What is behind them waits as it came.
const SEALED: usize = 32 * 1024;
/// Sessions that TLS 1.2 clients without tickets can come back to.
const SESSIONS: usize = 8_192;

/// A client's connection after the handshake.
pub type Encrypted = Box<TlsStream<ClientSocket>>;

/// A listener's TLS. Shared by the workers; replaced as a whole.
#[derive(Debug)]
pub struct Terminator {
    settings: TlsSettings,
    terms: ArcSwap<Terms>,
}

/// What is in force for handshakes that begin now.
#[derive(Debug)]
struct Terms {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    /// What sessions are resumed by. Kept over a reload unless the clients' CA changed.
    resumption: Resumption,
}

/// Tickets, whose keys are made here and change every six hours, and a cache for clients without them.
#[derive(Clone, Debug)]
struct Resumption {
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    /// The clients' CA, DER: a session that was begun under another one is not resumed, because resuming does not check
    /// the client's certificate again.
    clients: Vec<Vec<u8>>,
}

impl Terminator {
    /// Reads all files.
    ///
    /// # Errors
    /// Every file that cannot be used, by name.
    pub fn new(settings: TlsSettings) -> Result<Self, String> {
        let terms = Terms::read(&settings, None)?;
        Ok(Self { settings, terms: ArcSwap::from_pointee(terms) })
    }

    /// Reads all files again; handshakes that begin from now on get what they say. Connections are not touched.
    ///
    /// # Errors
    /// Every file that cannot be used, by name; what was in force stays.
    pub fn reload(&self) -> Result<(), String> {
        let terms = Terms::read(&self.settings, Some(&self.terms.load().resumption))?;
        self.terms.store(Arc::new(terms));
        Ok(())
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// The certificates in force.
    #[must_use]
    pub fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.terms.load().certificates)
    }

    /// What whoever runs us should look at.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let now = SystemTime::now();
        self.certificates().all().iter().flat_map(|certificate| certificate.doubts(now)).collect()
    }

    /// Why OCSP responses are not stapled although their files are named, in words.
    #[must_use]
    pub fn unstapled(&self) -> Vec<String> {
        let now = SystemTime::now();
        self.certificates().all().iter().filter_map(|certificate| certificate.unstapled(now)).collect()
    }

    /// The handshake. The caller bounds the time.
    ///
    /// # Errors
    /// The client left, or the two do not agree; it was told why. The socket comes back: closed at once, with something
    /// unread, it would be reset, and what the client was told lost with it.
    pub async fn accept(&self, socket: ClientSocket) -> Result<(Encrypted, Tls), (io::Error, ClientSocket)> {
        let terms = self.terms.load_full();
        let limited = |session: &mut ServerConnection| session.set_buffer_limit(Some(SEALED));
        let handshake = TlsAcceptor::from(Arc::clone(&terms.config)).accept_with(socket, limited);
        let mut stream = Box::new(handshake.into_fallible().await?);
        stream.get_mut().0.settle();
        let told = self.told(&terms, stream.get_ref().1);
        Ok((stream, told))
    }

    /// What the handshake told.
    fn told(&self, terms: &Terms, session: &ServerConnection) -> Tls {
        let sni = session.server_name();
        let names = &terms.certificates.choose(sni).names;
        let client = session.peer_certificates().and_then(<[_]>::first);
        // A certificate that was verified and cannot be read has no names that a rule could want.
        let san = client.and_then(|der| alternative_names(der).ok()).unwrap_or_default();
        Tls {
            sni: sni.map(Arc::from),
            san: san.into(),
            sni_covered: sni.is_some_and(|sni| names.covers(sni)),
            names: self.settings.check_authority.then(|| Arc::clone(names)),
            h2: session.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl Terms {
    fn read(settings: &TlsSettings, before: Option<&Resumption>) -> Result<Self, String> {
        let provider = tls_files::provider();
        let read = settings.certificates.iter().map(|files| Certificate::read(files, &provider));
        let (good, bad): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
        let mut wrong: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
        let clients = settings.client.as_ref().map(|client| tls_files::certificates(&client.ca)).transpose();
        let clients = clients.unwrap_or_else(|error| {
            wrong.push(error);
            None
        });
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let certificates = Certificates::new(good.into_iter().filter_map(Result::ok).collect());
        let certificates = Arc::new(certificates.ok_or("a TLS listener needs a certificate")?);
        let clients: Vec<Vec<u8>> = clients.unwrap_or_default().iter().map(|der| der.to_vec()).collect();
        let resumption = match before.filter(|before| before.clients == clients) {
            Some(before) => before.clone(),
            None => Resumption::new(clients)?,
        };
        let config = config(settings, &certificates, &resumption)?;
        Ok(Self { config: Arc::new(config), certificates, resumption })
    }
}

impl Resumption {
    fn new(clients: Vec<Vec<u8>>) -> Result<Self, String> {
        let tickets = Ticketer::new().map_err(|error| format!("keys for session tickets: {error}"))?;
        Ok(Self { tickets, sessions: ServerSessionMemoryCache::new(SESSIONS), clients })
    }
}

fn config(
    settings: &TlsSettings,
    certificates: &Arc<Certificates>,
    resumption: &Resumption,
) -> Result<ServerConfig, String> {
    let provider = tls_files::provider();
    let versions: Vec<_> = settings
        .versions
        .iter()
        .map(|version| match version {
            Version::Tls12 => &rustls::version::TLS12,
            Version::Tls13 => &rustls::version::TLS13,
        })
        .collect();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?;
    let builder = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(ClientAuth { ca, required }) => {
            let roots = Arc::new(tls_files::roots(Some(ca))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if *required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| format!("{}: {error}", ca.display()))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = settings.alpn.iter().map(|protocol| protocol.name().to_vec()).collect();
    config.ticketer = Arc::clone(&resumption.tickets);
    config.session_storage = Arc::clone(&resumption.sessions);
    Ok(config)
}
