//! Dialling a catalog: TCP, TLS or a Unix socket, within one deadline.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Address, HttpError};
use crate::tls_files::{self, ClientFiles};

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
    tls_files::client(ClientFiles {
        ca: settings.ca.as_deref(),
        identity: (settings.cert.as_deref(), settings.key.as_deref()),
        verify: !settings.insecure,
        alpn: &[b"h2", b"http/1.1"],
    })
}
