//! What every TLS side of ours shares: the cryptography, and certificates, keys and trust as files (PEM).

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// What a client trusts and shows.
#[derive(Clone, Copy, Debug)]
pub struct ClientFiles<'f> {
    /// Certificates to trust; `None`: the system's.
    pub ca: Option<&'f Path>,
    /// Our certificate and its key; both or none.
    pub identity: (Option<&'f Path>, Option<&'f Path>),
    /// Whether the server's certificate is checked at all.
    pub verify: bool,
    /// Protocols to offer, best first.
    pub alpn: &'f [&'f [u8]],
}

/// The cryptography of all our TLS: ring. Passed on explicitly; there is no process default.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A client's configuration.
///
/// # Errors
/// A file that cannot be used, by name.
pub fn client(files: ClientFiles<'_>) -> Result<ClientConfig, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if files.verify {
        builder.with_root_certificates(roots(files.ca)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    };
    let mut config = match files.identity {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(path)) => builder
            .with_client_auth_cert(certificates(cert)?, key(path)?)
            .map_err(|error| format!("{} with {}: {error}", cert.display(), path.display()))?,
        _ => return Err("a client certificate needs both cert and key".to_owned()),
    };
    config.alpn_protocols = files.alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The certificates that a file trusts; `None`: the system's.
///
/// # Errors
/// The file cannot be read, or nothing in it can be trusted.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    match store.add_parsable_certificates(found) {
        (0, _) => Err(match ca {
            Some(path) => format!("{}: no certificate in it can be trusted", path.display()),
            None => "the system has no certificates to trust; name a CA file".to_owned(),
        }),
        _ => Ok(store),
    }
}

/// All certificates of a file, in order.
///
/// # Errors
/// It cannot be read, or there is none in it.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The private key of a file: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// It cannot be read, or there is none in it.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Accepts every certificate: verification switched off by whoever runs us.
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
