//! Certificates of the test's own, and clients that believe them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pointsman::server::Listen;
use pointsman::server::tls::{CertificateFiles, Terminator, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Client, soon};

/// A certificate authority with a folder for its files.
pub struct Authority {
    pub folder: tempfile::TempDir,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Identity {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let authority = Self { folder: tempfile::tempdir().unwrap(), pem, issuer: Issuer::new(params, key) };
        std::fs::write(authority.ca(), &authority.pem).unwrap();
        authority
    }

    /// Its own certificate as a file.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        Identity { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// The same as files.
    pub fn files(&self, called: &str, names: &[&str]) -> CertificateFiles {
        let at = |kind: &str| self.folder.path().join(format!("{called}.{kind}.pem"));
        let files = CertificateFiles { cert: at("cert"), key: at("key"), ocsp: None };
        self.issue(names).write(&files.cert, &files.key);
        files
    }

    /// A listener that shows a certificate of this name.
    pub fn listen(&self, name: &str) -> Listen {
        let settings = TlsSettings::new(vec![self.files("listener", &[name])]);
        Listen { tls: Some(Arc::new(Terminator::new(settings).unwrap())), ..Listen::plain(super::ANY) }
    }

    /// A client's configuration that believes it.
    pub fn trusted(&self) -> ClientConfig {
        builder().with_root_certificates(self.roots()).with_no_client_auth()
    }

    /// The same, in these versions of TLS only.
    pub fn trusted_in(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(self.roots()).with_no_client_auth()
    }

    /// The same, keeping the OCSP response that came with the certificate.
    pub fn trusted_and_stapled(&self) -> (ClientConfig, Arc<Mutex<Vec<u8>>>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()), provider);
        let stapled: Arc<Mutex<Vec<u8>>> = Arc::default();
        let verifier = Stapled { inner: inner.build().unwrap(), seen: Arc::clone(&stapled) };
        let builder = builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        (builder.with_no_client_auth(), stapled)
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// The same, showing a certificate.
    pub fn trusted_with(&self, identity: &Identity) -> ClientConfig {
        let (cert, key) = identity.der();
        builder().with_root_certificates(self.roots()).with_client_auth_cert(vec![cert], key).unwrap()
    }
}

impl Identity {
    pub fn write(&self, cert: &Path, key: &Path) {
        std::fs::write(cert, &self.cert).unwrap();
        std::fs::write(key, &self.key).unwrap();
    }

    pub fn der(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap();
        (cert, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

/// Verifies as usual, and keeps what was stapled.
#[derive(Debug)]
struct Stapled {
    inner: Arc<rustls::client::WebPkiServerVerifier>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap() = ocsp.to_vec();
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

pub type TlsClient = Client<TlsStream<TcpStream>>;

/// A handshake for this name.
pub async fn greet(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> std::io::Result<TlsClient> {
    let stream = soon("a connection", TcpStream::connect(address)).await?;
    greet_over(config, stream, name).await
}

/// The same on a connection of the test's own.
pub async fn greet_over(config: &Arc<ClientConfig>, stream: TcpStream, name: &str) -> std::io::Result<TlsClient> {
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    Ok(Client::over(soon("a handshake", connecting).await?))
}
