//! Reaching an instance: TCP, the PROXY protocol's head where it is wanted, TLS where it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::proxy_head::{self, Ends};
use super::trust::{Trust, Trusts};
use super::wire::Wire;
use crate::engine::instance::Instance;
use crate::engine::policy::Protocol;
use crate::engine::upstream::{Encryption, ProxyVersion, Upstream, UpstreamTls, says_https};

/// Bytes that the system takes for an instance beyond what is on its way to it, so that one that does not read costs the
/// system that and not megabytes for each upload.
const UNSENT: u32 = 128 * 1024;

/// How to reach an instance.
#[derive(Clone, Debug)]
pub struct Dial {
    addr: SocketAddr,
    secure: Option<Secure>,
    proxy: Option<ProxyVersion>,
}

#[derive(Clone, Debug)]
struct Secure {
    trust: Arc<Trust>,
    /// `Err`: what cannot be a name.
    name: Result<ServerName<'static>, String>,
}

impl Dial {
    /// By the rules and the instance's labels.
    #[must_use]
    pub fn of(instance: &Instance, upstream: &Upstream, trusts: &Trusts) -> Self {
        let by_label;
        let tls = match &upstream.tls {
            Some(Encryption::On(tls)) => Some(tls),
            None if says_https(instance) => {
                by_label = UpstreamTls::default();
                Some(&by_label)
            }
            Some(Encryption::Off) | None => None,
        };
        let secure = tls.map(|tls| {
            let labelled = tls.name_label.as_deref().and_then(|label| instance.labels.value(label));
            let name = tls.name.as_deref().or(labelled).unwrap_or(&instance.host);
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned()).map_err(|_| name.to_owned());
            Secure { trust: trusts.of(tls), name }
        });
        Self { addr: instance.addr, secure, proxy: upstream.proxy_protocol }
    }

    /// Whether a connection that the other made would do as well.
    #[must_use]
    pub fn reaches_alike(&self, other: &Self) -> bool {
        let way = |dial: &Self| (dial.addr, dial.proxy, dial.secure.as_ref().map(|secure| secure.name.clone()));
        let trust = |dial: &Self| dial.secure.as_ref().map(|secure| Arc::as_ptr(&secure.trust));
        way(self) == way(other) && trust(self) == trust(other)
    }

    /// A plain connection.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self { addr, secure: None, proxy: None }
    }

    /// What requests to the instance are sent in: as the rules say, else by its `label`. A connection that is for one client
    /// only is one of HTTP/1.1.
    #[must_use]
    pub fn protocol(&self, instance: &Instance, upstream: &Upstream, label: &str) -> Protocol {
        let labelled = || Protocol::of_label(instance.labels.value(label));
        if self.is_personal() { Protocol::Http1 } else { upstream.protocol.unwrap_or_else(labelled) }
    }

    /// Where to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.secure.is_some()
    }

    /// Whether a connection is for one client only.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        self.proxy.is_some()
    }

    /// A connection on which `protocol` can be spoken, on behalf of this client's connection. The caller bounds the time.
    ///
    /// # Errors
    /// Of kind `InvalidData`: TLS failed, in words. Others: no connection.
    pub async fn wire(&self, protocol: Protocol, client: Option<Ends>) -> io::Result<Wire> {
        let stream = self.socket(client).await?;
        let Some(secure) = &self.secure else { return Ok(Wire::Plain(stream)) };
        let failed = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
        let name = secure.name.clone().map_err(|name| failed(format!("`{name}` cannot be the name of a server")))?;
        let config = secure.trust.config(protocol);
        let config = config.ok_or_else(|| failed("the files of `upstream.tls` have not been read".to_owned()))?;
        // Boxed: it is large, and rare beside requests.
        let handshake = Box::pin(TlsConnector::from(config).connect(name, stream));
        let stream = handshake.await.map_err(|error| failed(error.to_string()))?;
        if protocol == Protocol::H2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(failed("the instance does not agree to HTTP/2".to_owned()));
        }
        Ok(Wire::Tls(Box::new(stream)))
    }

    /// A bare connection, with the PROXY protocol's head written where it is wanted: what passes through is encrypted
    /// by the client, or not at all.
    ///
    /// # Errors
    /// No connection.
    pub async fn socket(&self, client: Option<Ends>) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
        if let Some(version) = self.proxy {
            stream.write_all(&proxy_head::head(version, client)).await?;
        }
        Ok(stream)
    }
}

/// The system refused us, not the instance: no descriptors, ports or memory. It says nothing about the instance.
#[must_use]
pub fn is_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, OutOfMemory};
    /// EMFILE, ENFILE, ENOBUFS on Linux; they have no stable `ErrorKind`.
    const EXHAUSTED: [i32; 3] = [24, 23, 105];
    matches!(error.kind(), AddrNotAvailable | OutOfMemory)
        || error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code))
}
