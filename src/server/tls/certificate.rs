//! One certificate: its key, its names, until when it is good.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ocsp::{self, Validity};
use super::settings::CertificateFiles;
use crate::forward::authority::Names;
use crate::tls_files;

/// The largest OCSP response that is read, bytes.
const OCSP_MOST: u64 = 64 * 1024;

/// A certificate that can be shown.
#[derive(Debug)]
pub struct Certificate {
    /// The chain and the key.
    pub certified: Arc<CertifiedKey>,
    /// The OCSP response; `Err`: why there is none, in words. `None`: no file is named.
    pub staple: Option<Result<Staple, String>>,
    /// What it is for.
    pub names: Arc<Names>,
    /// Until when it is good.
    pub expires: SystemTime,
    /// Which files it is from.
    pub files: CertificateFiles,
}

/// An OCSP response that goes with its certificate.
#[derive(Debug)]
pub struct Staple {
    /// The chain, the key, the response.
    certified: Arc<CertifiedKey>,
    /// When it may be shown.
    pub validity: Validity,
}

impl Certificate {
    /// Reads the files. An OCSP response that cannot be used is left out: [`Certificate::staple`] says why.
    ///
    /// # Errors
    /// A file that cannot be used, by name; a key that belongs to another certificate.
    pub fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, String> {
        let chain = tls_files::certificates(&files.cert)?;
        let key = tls_files::key(&files.key)?;
        let wrong = |error| format!("{}: {error}", files.cert.display());
        let (names, expires) = described(&chain[0]).map_err(wrong)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            format!("{} and {} do not go together: {error}", files.cert.display(), files.key.display())
        })?;
        let staple = files.ocsp.as_deref().map(|path| Staple::read(path, &certified));
        let (certified, names) = (Arc::new(certified), Arc::new(names));
        Ok(Self { certified, staple, names, expires, files: files.clone() })
    }

    /// What a client that shakes hands now is shown: with the OCSP response only while that is in force.
    #[must_use]
    pub fn shown(&self, now: SystemTime) -> &Arc<CertifiedKey> {
        match &self.staple {
            Some(Ok(staple)) if staple.validity.covers(now) => &staple.certified,
            _ => &self.certified,
        }
    }

    /// Why no OCSP response is shown now although a file is named, in words; `None`: nothing is wrong.
    #[must_use]
    pub fn unstapled(&self, now: SystemTime) -> Option<String> {
        let why = match self.staple.as_ref()? {
            Ok(staple) if staple.validity.covers(now) => return None,
            Ok(staple) if now < staple.validity.from => "the OCSP response is not valid yet",
            Ok(_) => "the OCSP response is over",
            Err(why) => why,
        };
        let path = self.files.ocsp.as_deref().unwrap_or(Path::new("")).display();
        let cert = self.files.cert.display();
        Some(format!(
            "{path}: {why}; {cert} is shown without it; write a fresh response to the file, it is read again by itself"
        ))
    }

    /// What whoever runs us should look at: a key that others can read, a certificate that is over or names nobody, an
    /// OCSP response that is not shown.
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
        doubts.extend(self.unstapled(now));
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

impl Staple {
    fn read(path: &Path, bare: &CertifiedKey) -> Result<Self, String> {
        let mut chain = bare.cert.iter().map(|der| X509Certificate::from_der(der).ok().map(|(_, read)| read));
        // It was read before, for its names.
        let leaf = chain.next().flatten().ok_or("its certificate cannot be read")?;
        let issuer = chain.next().flatten().filter(|issuer| issuer.subject() == leaf.issuer());
        let (response, validity) = response(path, &leaf, issuer.as_ref())?;
        let certified = CertifiedKey { ocsp: Some(response), ..bare.clone() };
        Ok(Self { certified: Arc::new(certified), validity })
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

/// The file's response, and when it may be shown.
fn response(
    path: &Path,
    leaf: &X509Certificate<'_>,
    issuer: Option<&X509Certificate<'_>>,
) -> Result<(Vec<u8>, Validity), String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(OCSP_MOST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > OCSP_MOST {
        return Err(format!("larger than {OCSP_MOST} bytes, so no OCSP response"));
    }
    let validity = ocsp::validity(&bytes, leaf, issuer).map_err(|unfit| unfit.to_string())?;
    Ok((bytes, validity))
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
    fn rubbish_is_no_certificate() {
        assert!(alternative_names(b"rubbish").is_err());
        assert!(described(&[0x30, 0x82]).is_err());
    }
}
