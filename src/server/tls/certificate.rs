//! One certificate: its key, its names, until when it is good.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::settings::CertificateFiles;
use crate::forward::authority::Names;
use crate::tls_files;

/// The largest OCSP response that is read, bytes.
const OCSP_MOST: u64 = 64 * 1024;

/// A certificate that can be shown.
#[derive(Debug)]
pub struct Certificate {
    /// The chain, the key, the OCSP response.
    pub certified: Arc<CertifiedKey>,
    /// What it is for.
    pub names: Arc<Names>,
    /// Until when it is good.
    pub expires: SystemTime,
    /// Which files it is from.
    pub files: CertificateFiles,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be used, by name; a key that belongs to another certificate.
    pub fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, String> {
        let chain = tls_files::certificates(&files.cert)?;
        let key = tls_files::key(&files.key)?;
        let wrong = |error| format!("{}: {error}", files.cert.display());
        let (names, expires) = described(&chain[0]).map_err(wrong)?;
        let mut certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            format!("{} and {} do not go together: {error}", files.cert.display(), files.key.display())
        })?;
        certified.ocsp = files.ocsp.as_deref().map(ocsp).transpose()?;
        Ok(Self { certified: Arc::new(certified), names: Arc::new(names), expires, files: files.clone() })
    }

    /// What whoever runs us should look at: a key that others can read, a certificate that is over or names nobody.
    #[must_use]
    pub fn doubts(&self, now: SystemTime) -> Vec<String> {
        let mut doubts = Vec::new();
        let (cert, key) = (self.files.cert.display(), self.files.key.display());
        if is_open(&self.files.key) {
            doubts.push(format!("{key}: everybody on this machine can read the key; `chmod o-rwx` it"));
        }
        if self.expires <= now {
            doubts.push(format!("{cert}: the certificate has expired"));
        }
        if *self.names == Names::default() {
            doubts.push(format!("{cert}: the certificate names no host"));
        }
        doubts
    }

    /// The first of its names, for people and metrics.
    #[must_use]
    pub fn name(&self) -> String {
        let Names { exact, wildcards, addresses } = &*self.names;
        let first = exact.first().map(ToString::to_string);
        let wildcard = || wildcards.first().map(|name| format!("*.{name}"));
        first.or_else(wildcard).or_else(|| addresses.first().map(ToString::to_string)).unwrap_or_default()
    }
}

/// The subject alternative names of a client's certificate, as the rules see them: DNS names, addresses, URIs and mail
/// addresses, each as its text.
///
/// # Errors
/// It is no certificate.
pub fn alternative_names(der: &[u8]) -> Result<Vec<String>, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let found = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    Ok(found.map_or_else(Vec::new, |found| found.value.general_names.iter().filter_map(text).collect()))
}

/// What a certificate is for, and until when. One without alternative names is for its common name (RFC 6125, 6.4.4).
fn described(der: &[u8]) -> Result<(Names, SystemTime), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let mut names = Names::default();
    let mut dns = |name: &str| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(rest) if !rest.is_empty() => names.wildcards.push(rest.into()),
            _ => names.exact.push(name.into()),
        }
    };
    let found = certificate.subject_alternative_name().map_err(|error| format!("alternative names: {error}"))?;
    let mut addresses = Vec::new();
    match found {
        Some(found) => {
            for name in &found.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns(name),
                    GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        None => certificate.subject().iter_common_name().filter_map(|cn| cn.as_str().ok()).for_each(dns),
    }
    names.addresses = addresses;
    let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok((names, SystemTime::UNIX_EPOCH + Duration::from_secs(expires)))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::from(bytes).to_canonical()))
        .ok()
}

/// An OCSP response, if it is a successful one: a client that insists on stapling breaks off at any other.
fn ocsp(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > OCSP_MOST {
        return Err(format!("{}: larger than {OCSP_MOST} bytes, so no OCSP response", path.display()));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    if is_successful(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("{}: not a successful OCSP response in DER", path.display()))
    }
}

/// RFC 6960, 4.2.1: a SEQUENCE that begins with an ENUMERATED of 0 and is as long as it says.
fn is_successful(der: &[u8]) -> bool {
    let Some((0x30, rest)) = der.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    let (length, rest) = match rest.split_first() {
        Some((short @ 0..=0x7f, rest)) => (usize::from(*short), rest),
        Some((0x81, [a, rest @ ..])) => (usize::from(*a), rest),
        Some((0x82, [a, b, rest @ ..])) => (usize::from(*a) << 8 | usize::from(*b), rest),
        _ => return false,
    };
    length == rest.len() && rest.starts_with(&[0x0a, 1, 0])
}

#[cfg(unix)]
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_successful_ocsp_response_is_stapled() {
        assert!(is_successful(&[0x30, 5, 0x0a, 1, 0, 0xa0, 0]));
        assert!(is_successful(&[0x30, 0x81, 5, 0x0a, 1, 0, 0xa0, 0]));
        for wrong in
            [&[][..], &[0x30], &[0x30, 3, 0x0a, 1, 6], &[0x30, 9, 0x0a, 1, 0], &[0x31, 3, 0x0a, 1, 0], b"-----"]
        {
            assert!(!is_successful(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn rubbish_is_no_certificate() {
        assert!(alternative_names(b"rubbish").is_err());
        assert!(described(&[0x30, 0x82]).is_err());
    }
}
