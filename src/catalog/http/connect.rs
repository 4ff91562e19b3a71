//! Dialling a catalog: TCP, TLS or a Unix socket, within one deadline.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Address, HttpError};

/// TLS files and names. The same as a catalog's settings, without its spelling.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// Certificates to trust (PEM); `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name in the server's certificate; `None`: the address's host.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A byte stream to a catalog.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Dials; keeps the TLS configuration until one of its files changes.
#[derive(Debug, Default)]
pub struct Dialler {
    settings: TlsSettings,
    built: Mutex<Option<Built>>,
}

type Built = (Vec<Option<SystemTime>>, Arc<ClientConfig>);

impl Dialler {
    /// With these TLS settings. Files are read when they are first needed.
    #[must_use]
    pub fn new(settings: TlsSettings) -> Self {
        Self { settings, built: Mutex::new(None) }
    }

    /// A connection, and whether it speaks HTTP/2.
    ///
    /// # Errors
    /// Refused, too late, or a handshake that failed.
    pub async fn dial(&self, address: &Address, within: Duration) -> Result<(Box<dyn Stream>, bool), HttpError> {
        let failed = |source| HttpError::Connect { address: address.to_string(), source };
        let connecting = async {
            match address {
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(failed)?;
                    Ok((Box::new(stream) as Box<dyn Stream>, false))
                }
                Address::Tcp { tls, host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                    stream.set_nodelay(true).map_err(failed)?;
                    if *tls {
                        let connector = self.connector(host).map_err(HttpError::Tls)?;
                        handshake(connector, stream).await.map_err(failed)
                    } else {
                        Ok((Box::new(stream) as Box<dyn Stream>, false))
                    }
                }
            }
        };
        match tokio::time::timeout(within, connecting).await {
            Err(_) => Err(HttpError::ConnectTimeout { address: address.to_string(), within }),
            Ok(connected) => connected,
        }
    }

    fn connector(&self, host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
        let name = self.settings.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|error| format!("server name `{name}`: {error}"))?;
        Ok((TlsConnector::from(self.config()?), name))
    }

    /// The TLS configuration in force; built again when a file changed. A file that cannot be used any more keeps the
    /// last good configuration.
    ///
    /// # Errors
    /// What is wrong with the files, when there is no good configuration yet.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let stamps = self.stamps();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, config)) = built.as_ref()
            && *seen == stamps
        {
            return Ok(Arc::clone(config));
        }
        match (build(&self.settings), built.as_mut()) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *built = Some((stamps, Arc::clone(&config)));
                Ok(config)
            }
            (Err(error), Some((seen, config))) => {
                tracing::warn!(target: "pointsman::catalog", %error,
                    "the changed TLS files towards the catalog cannot be used; the last good ones stay in force");
                *seen = stamps;
                Ok(Arc::clone(config))
            }
            (Err(error), None) => Err(error),
        }
    }

    fn stamps(&self) -> Vec<Option<SystemTime>> {
        [&self.settings.ca, &self.settings.cert, &self.settings.key]
            .into_iter()
            .map(|path| path.as_ref().and_then(|path| std::fs::metadata(path).ok()?.modified().ok()))
            .collect()
    }
}

async fn handshake(
    (connector, name): (TlsConnector, ServerName<'static>),
    stream: TcpStream,
) -> std::io::Result<(Box<dyn Stream>, bool)> {
    let stream = connector.connect(name, stream).await?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), h2))
}

fn build(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if settings.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(settings)?)
    };
    let mut config = match (&settings.cert, &settings.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(|error| error.to_string())?
        }
        _ => return Err("a client certificate needs both cert and key".to_owned()),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = match &settings.ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = store.add_parsable_certificates(found);
    if added == 0 {
        return Err("no certificate to trust was found; set tls.ca".to_owned());
    }
    Ok(store)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Accepts every certificate (`tls.insecure`, `CONSUL_HTTP_SSL_VERIFY=false`).
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
