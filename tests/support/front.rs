//! Something in front of a scripted Consul: TLS with any certificates, HTTP/1.1 or h2 by ALPN, or a Unix socket.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A private certificate authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Identity {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for this name or address.
    pub fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Identity { cert, key: key.serialize_pem() }
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).expect("written");
    }

    /// What a client that believes it needs.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")).expect("a certificate");
        Arc::new(roots)
    }
}

impl Identity {
    pub fn write(&self, cert: &Path, key: &Path) {
        std::fs::write(cert, &self.cert).expect("written");
        std::fs::write(key, &self.key).expect("written");
    }
}

/// What a TLS front shows and asks for.
pub struct Tls<'a> {
    pub identity: &'a Identity,
    /// Signs the client certificates that are required.
    pub clients: Option<&'a Authority>,
    pub h2: bool,
}

impl Tls<'_> {
    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(authority.roots(), provider).build().expect("a verifier"),
            ),
        };
        let cert = CertificateDer::from_pem_slice(self.identity.cert.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).expect("PEM");
        let mut config = builder.with_single_cert(vec![cert], key).expect("they match");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if self.h2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Arc::new(config)
    }
}

/// The handle. Dropping it ends the front and every connection through it.
pub struct Front {
    url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    behind: SocketAddr,
    config: Mutex<Option<Arc<ServerConfig>>>,
    accepted: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicUsize,
    passes_bytes: AtomicBool,
    cut: watch::Sender<u64>,
}

impl Front {
    /// TLS on a port of its own, in front of `behind`, which speaks HTTP/1.1.
    pub async fn tls(behind: SocketAddr, tls: Tls<'_>) -> Self {
        Self::terminating(Shared::new(behind, Some(tls.config()))).await
    }

    /// TLS on a port of its own, in front of `behind`, which speaks itself what was agreed on.
    pub async fn tls_alone(behind: SocketAddr, tls: Tls<'_>) -> Self {
        let shared = Shared::new(behind, Some(tls.config()));
        shared.passes_bytes.store(true, Ordering::Release);
        Self::terminating(shared).await
    }

    async fn terminating(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let url = format!("https://{}", listener.local_addr().expect("it is bound"));
        let own = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let nth = own.accepted.fetch_add(1, Ordering::AcqRel);
                if nth >= own.most.load(Ordering::Acquire) {
                    continue;
                }
                tokio::spawn(until_cut(Arc::clone(&own), terminate(Arc::clone(&own), stream)));
            }
        });
        Self { url, shared, accepting }
    }

    /// A Unix socket at `path`, in front of `behind`.
    pub fn unix(behind: SocketAddr, path: &Path) -> Self {
        let shared = Shared::new(behind, None);
        let listener = UnixListener::bind(path).expect("a socket");
        let own = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                own.accepted.fetch_add(1, Ordering::AcqRel);
                let relay = async move {
                    let mut consul = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut consul).await.map(drop)
                };
                tokio::spawn(until_cut(Arc::clone(&own), relay));
            }
        });
        Self { url: format!("unix://{}", path.display()), shared, accepting }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Connections after so many are closed without a byte.
    pub fn limit(&self, most: usize) {
        self.shared.most.store(most, Ordering::Release);
    }

    /// Handshakes that failed so far, on either side.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Acquire)
    }

    /// Shows and asks for something else from now on, and cuts every connection.
    pub fn change(&self, tls: Tls<'_>) {
        *self.shared.config.lock().expect("no panic holds it") = Some(tls.config());
        self.shared.cut.send_modify(|n| *n += 1);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.cut.send_modify(|n| *n += 1);
    }
}

impl Shared {
    fn new(behind: SocketAddr, config: Option<Arc<ServerConfig>>) -> Arc<Self> {
        let (accepted, refused, cut) = (AtomicUsize::new(0), AtomicUsize::new(0), watch::Sender::new(0));
        Arc::new(Self {
            behind,
            config: Mutex::new(config),
            accepted,
            most: AtomicUsize::new(usize::MAX),
            refused,
            passes_bytes: AtomicBool::new(false),
            cut,
        })
    }
}

async fn until_cut(shared: Arc<Shared>, connection: impl Future<Output = std::io::Result<()>>) {
    let mut cut = shared.cut.subscribe();
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = connection => {}
        _ = cut.changed() => {}
    }
}

async fn terminate(shared: Arc<Shared>, stream: TcpStream) -> std::io::Result<()> {
    let config = shared.config.lock().expect("no panic holds it").clone().expect("a TLS front");
    let accepted = TlsAcceptor::from(config).accept(stream).await;
    let mut stream = accepted.inspect_err(|_| {
        shared.refused.fetch_add(1, Ordering::AcqRel);
    })?;
    if shared.passes_bytes.load(Ordering::Acquire) || stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        let mut consul = TcpStream::connect(shared.behind).await?;
        return tokio::io::copy_bidirectional(&mut stream, &mut consul).await.map(drop);
    }
    let behind = shared.behind;
    let service = service_fn(move |request| pass_on(behind, request));
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server.serve_connection(TokioIo::new(stream), service).await.map_err(std::io::Error::other)
}

/// One stream: an HTTP/1.1 exchange of its own with the Consul behind.
async fn pass_on(
    behind: SocketAddr,
    request: Request<Incoming>,
) -> Result<http::Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    let authority = parts.uri.authority().ok_or("an h2 request names its authority")?.to_string();
    (parts.uri, parts.version) = (target, http::Version::HTTP_11);
    parts.headers.insert(http::header::HOST, authority.parse()?);
    let stream = TokioIo::new(TcpStream::connect(behind).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(Request::from_parts(parts, body)).await?)
}
