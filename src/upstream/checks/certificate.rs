//! Whose certificate an instance shows.

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::ServerName;

use crate::upstream::wire::Wire;

/// Whether the certificate shown on a connection is for this DNS name (RFC 6125: a subject alternative name, wildcards by
/// whole labels). Who issued it was judged by the handshake, where the rules want that.
///
/// # Errors
/// Why it is not, in words.
pub(super) fn is_for(name: &str, wire: &Wire) -> Result<(), String> {
    let Wire::Tls(stream) = wire else { return Err("the instance is not spoken to over TLS".to_owned()) };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| "none was shown".to_owned())?;
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    ParsedCertificate::try_from(shown)
        .and_then(|certificate| verify_server_name(&certificate, &name))
        .map_err(|error| error.to_string())
}
