//! Where clients connect: the listeners as written, and how they are read.

use std::net::SocketAddr;

use super::report::Origin;
use super::scope::{Context, Item, Place, Scope};
use super::settings::PathText;
use super::value::{address, choice, flag, text, whole};

/// One client-side listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// IP and port; port 0: chosen by the system.
    pub address: SocketAddr,
    /// `None`: plain.
    pub tls: Option<ListenTls>,
    /// Whether a PROXY protocol head (v1 or v2) is expected, from `trusted_proxies` only. Default false.
    pub proxy_protocol: bool,
    /// Whether a client that has closed its sending side before the answer still gets it. Default false.
    pub half_close: bool,
    /// Whether HTTP/2 is spoken in the clear with a client that begins so (prior knowledge). Default true.
    pub h2c: bool,
    /// Bytes are passed on unread. Default none: HTTP.
    pub passes: Option<Passes>,
    /// Every request is sent to https at this port. Default none.
    pub redirect: Option<u16>,
    /// Requests at once that come in by this listener; a connection that is passed on unread is one. Default 0: no limit.
    pub requests: u32,
    /// `Strict-Transport-Security` on every answer; needs `tls`. Default none.
    pub hsts: Option<String>,
}

/// A listener whose bytes are passed on unread, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passes {
    /// All to the instances that the rules have for this host.
    Tcp(String),
    /// To those that the rules have for the name in the client's greeting.
    Sni,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// At least one; the first is for clients that ask for no name, or for an unknown one.
    pub certificates: Vec<Certificate>,
    /// `None`: clients are asked for no certificate.
    pub client: Option<ClientTls>,
    /// Default both.
    pub versions: Vec<TlsVersion>,
    /// Application protocols, best first. Default what this build speaks.
    pub alpn: Vec<Alpn>,
    /// Whether a request for a host that the certificate does not cover gets 421. Default true.
    pub check_authority: bool,
}

/// One certificate's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, PEM.
    pub cert: PathText,
    /// The key, PEM.
    pub key: PathText,
    /// An OCSP response to staple, DER.
    pub ocsp: Option<PathText>,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Whose are believed, PEM.
    pub ca: PathText,
    /// Whether a client must show one. Default true.
    pub required: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// An application protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2
    H2,
    /// HTTP/1.1
    Http1,
}

impl Listen {
    /// Plain HTTP.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            proxy_protocol: false,
            half_close: false,
            h2c: true,
            passes: None,
            redirect: None,
            requests: 0,
            hsts: None,
        }
    }
}

/// All listeners.
pub(super) fn listeners(at: &mut Scope<'_>, cx: &mut Context<'_>) -> Vec<Listen> {
    let Some(items) = at.items("listen", cx) else {
        at.note("listen", "[{address: 0.0.0.0:8080}]".to_owned(), Origin::Default, cx);
        return vec![Listen::plain(([0, 0, 0, 0], 8080).into())];
    };
    items.into_iter().filter_map(|item| listener(item, cx)).collect()
}

/// A map, or only the address.
fn listener(item: Item<'_>, cx: &mut Context<'_>) -> Option<Listen> {
    let place = item.place;
    if let Some(text) = place.node.text() {
        return match address(text) {
            Ok(address) => {
                item.note(text, cx);
                Some(Listen::plain(address))
            }
            Err(why) => {
                cx.out.push(place.error("E901", format!("`listen`: {why}")));
                None
            }
        };
    }
    let mut at = item.scope(cx);
    let address = at.required("address", address, place, cx);
    let tls = at.map("tls", cx);
    let has_tls = tls.is_written();
    let tls = if has_tls { listen_tls(tls, place, cx) } else { None };
    let listen = address.map(|address| Listen {
        address,
        tls,
        proxy_protocol: at.value("proxy_protocol", "false", flag, cx),
        half_close: at.value("half_close", "false", flag, cx),
        h2c: at.value("h2c", "true", flag, cx),
        passes: passes(&mut at, place, cx),
        redirect: at.optional("redirect", redirect, cx),
        requests: at.value("requests", "0", |text| whole(0, 10_000_000)(text).map(|n| n as u32), cx),
        hsts: at.optional("hsts", hsts, cx),
    });
    if let Some(listen) = &listen {
        if listen.redirect.is_some() && has_tls {
            cx.out.push(place.error(
                "E903",
                "`redirect: https` is for a listener without `tls`: who comes in by this one is there already",
            ));
        }
        if listen.passes.is_some() && (has_tls || listen.redirect.is_some() || listen.half_close) {
            let words = "`tcp` and `tls_passthrough` pass bytes on unread: there is no TLS and no HTTP of ours";
            cx.out.push(place.error("E903", format!("{words}, so `tls`, `redirect` and `half_close` say nothing")));
        }
        if listen.hsts.is_some() && !has_tls {
            cx.out.push(
                place.error("E903", "`hsts` needs `tls`: clients ignore it on plain connections (RFC 6797, 8.1)"),
            );
        }
    }
    at.finish(cx);
    listen
}

/// `tcp: {host: NAME}` or `tls_passthrough: true`.
fn passes(at: &mut Scope<'_>, place: Place<'_>, cx: &mut Context<'_>) -> Option<Passes> {
    let mut tcp = at.map("tcp", cx);
    let host = match tcp.is_written() {
        true => {
            let host = tcp.required("host", text, place, cx);
            tcp.finish(cx);
            host
        }
        false => None,
    };
    let by_name = at.value("tls_passthrough", "false", flag, cx);
    if by_name && host.is_some() {
        cx.out.push(place.error("E903", "`tcp` and `tls_passthrough` are two ways; keep one"));
    }
    if by_name { Some(Passes::Sni) } else { host.map(Passes::Tcp) }
}

fn listen_tls(mut at: Scope<'_>, place: Place<'_>, cx: &mut Context<'_>) -> Option<ListenTls> {
    let certificates = match at.items("certificates", cx) {
        Some(items) => {
            for key in ["cert", "key", "ocsp"] {
                if let Some(short) = at.find(key) {
                    cx.out.push(short.error("E903", format!("`{key}` belongs into an item of `certificates`")));
                }
            }
            if items.is_empty() {
                cx.out.push(place.error("E903", "`certificates` is empty: a TLS listener needs one"));
            }
            let read = |item: Item<'_>, cx: &mut Context<'_>| {
                let place = item.place;
                let mut at = item.scope(cx);
                let certificate = certificate(&mut at, place, cx);
                at.finish(cx);
                certificate
            };
            items.into_iter().map(|item| read(item, cx)).collect::<Vec<_>>()
        }
        None => vec![certificate(&mut at, place, cx)],
    };
    let client = at.map("client", cx);
    let client = if client.is_written() { client_tls(client, place, cx) } else { None };
    let version = choice(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]);
    let versions = at.list("versions", "1.2, 1.3", version, cx);
    let alpn = at.list("alpn", "h2, http/1.1", choice(&[("h2", Alpn::H2), ("http/1.1", Alpn::Http1)]), cx);
    let check_authority = at.value("check_authority", "true", flag, cx);
    if versions.is_empty() {
        cx.out.push(place.error("E903", "`versions` is empty: nobody could connect"));
    }
    at.finish(cx);
    let certificates = certificates.into_iter().collect::<Option<Vec<_>>>()?;
    Some(ListenTls { certificates, client, versions, alpn, check_authority })
}

fn certificate(at: &mut Scope<'_>, place: Place<'_>, cx: &mut Context<'_>) -> Option<Certificate> {
    let cert = at.required("cert", text, place, cx);
    let key = at.required("key", text, place, cx);
    let ocsp = at.optional("ocsp", text, cx);
    Some(Certificate { cert: cert?, key: key?, ocsp })
}

fn client_tls(mut at: Scope<'_>, place: Place<'_>, cx: &mut Context<'_>) -> Option<ClientTls> {
    let ca = at.required("ca", text, place, cx);
    let required = at.value("mode", "required", choice(&[("required", true), ("optional", false)]), cx);
    at.finish(cx);
    Some(ClientTls { ca: ca?, required })
}

/// `https`, or `https:PORT`.
fn redirect(text: &str) -> Result<u16, String> {
    let port = match text.strip_prefix("https") {
        Some("") => Some(443),
        Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port > 0),
        None => None,
    };
    port.ok_or_else(|| format!("`{text}` is no place to redirect to; write https or https:8443"))
}

/// RFC 6797, 6.1: `max-age` is the one directive that must be there.
fn hsts(text: &str) -> Result<String, String> {
    let mut directives = text.split(';').map(str::trim);
    let is_age = |directive: &str| {
        let (name, seconds) = directive.split_once('=')?;
        let digits = seconds.trim().trim_matches('"');
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        Some(name.trim().eq_ignore_ascii_case("max-age") && whole)
    };
    let visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if visible && directives.any(|directive| is_age(directive) == Some(true)) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` has no `max-age`; write \"max-age=31536000; includeSubDomains\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_redirect_to_and_hsts_are_read() {
        assert_eq!((redirect("https"), redirect("https:8443")), (Ok(443), Ok(8443)));
        for wrong in ["http", "https:", "https:0", "https:x", "https://a", ""] {
            assert!(redirect(wrong).is_err(), "{wrong}");
        }
        assert!(hsts("max-age=31536000; includeSubDomains").is_ok() && hsts("Max-Age = \"1\"").is_ok());
        for wrong in ["", "includeSubDomains", "max-age=", "max-age=x", "max-age", "max-age=1\r\nx: y"] {
            assert!(hsts(wrong).is_err(), "{wrong:?}");
        }
    }
}
