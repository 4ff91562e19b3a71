//! Listeners as configured into listeners as served: certificates read, terms spelt out.

use std::sync::Arc;

use http::HeaderValue;

use super::StartError;
use crate::config;
use crate::engine::route::host;
use crate::forward::connection::Entrance;
use crate::server::Listen;
use crate::server::passthrough::Passes;
use crate::server::tls::{CertificateFiles, ClientAuth, Offered, Terminator, TlsSettings, Version};

/// All listeners.
///
/// # Errors
/// Every listener whose files cannot be used, with the file and why.
pub fn listeners(from: &[config::Listen], trusted: bool) -> Result<Vec<Listen>, StartError> {
    let (mut listen, mut wrong) = (Vec::new(), Vec::new());
    for from in from {
        match listener(from, trusted) {
            Ok(listener) => listen.push(listener),
            Err(why) => wrong.push(format!("listener {}: {why}", from.address)),
        }
    }
    if wrong.is_empty() { Ok(listen) } else { Err(StartError::Setting(wrong.join("; "))) }
}

/// `trusted`: whether anybody is a trusted proxy.
fn listener(from: &config::Listen, trusted: bool) -> Result<Listen, String> {
    let config::Listen { address, tls, proxy_protocol, half_close, h2c, passes, redirect, hsts, requests } = from;
    if *proxy_protocol && !trusted {
        return Err(
            "`proxy_protocol` needs `trusted_proxies`: from nobody else is it believed, so nobody could connect".into(),
        );
    }
    let hsts = hsts.as_deref().map(HeaderValue::try_from).transpose().map_err(|error| format!("`hsts`: {error}"))?;
    Ok(Listen {
        address: *address,
        tls: tls.as_ref().map(|tls| Terminator::new(terms(tls)).map(Arc::new)).transpose()?,
        proxy_protocol: *proxy_protocol,
        passes: passes.as_ref().map(passing).transpose()?,
        entrance: Entrance {
            half_close: *half_close,
            refuse_h2c: !*h2c,
            redirect: *redirect,
            requests: *requests,
            places: Arc::default(),
            hsts,
        },
    })
}

fn passing(passes: &config::Passes) -> Result<Passes, String> {
    match passes {
        config::Passes::Tcp(host) => {
            let name = host::normalise(host).map_err(|_| {
                format!("`tcp: {{host: {host}}}` is no host: write a name as in `hosts` of the rules, or every connection is refused")
            })?;
            Ok(Passes::Host(name.into()))
        }
        config::Passes::Sni => Ok(Passes::Sni),
    }
}

fn terms(from: &config::ListenTls) -> TlsSettings {
    let config::ListenTls { certificates, client, versions, alpn, check_authority } = from;
    let files = |from: &config::Certificate| {
        let config::Certificate { cert, key, ocsp } = from;
        CertificateFiles { cert: cert.into(), key: key.into(), ocsp: ocsp.as_ref().map(Into::into) }
    };
    TlsSettings {
        certificates: certificates.iter().map(files).collect(),
        client: client.as_ref().map(|client| {
            let config::ClientTls { ca, required } = client;
            ClientAuth { ca: ca.into(), required: *required }
        }),
        versions: versions
            .iter()
            .map(|version| match version {
                config::TlsVersion::Tls12 => Version::Tls12,
                config::TlsVersion::Tls13 => Version::Tls13,
            })
            .collect(),
        alpn: alpn
            .iter()
            .map(|protocol| match protocol {
                config::Alpn::H2 => Offered::H2,
                config::Alpn::Http1 => Offered::Http1,
            })
            .collect(),
        check_authority: *check_authority,
    }
}
