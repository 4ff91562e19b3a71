//! Whose certificate an instance shows.

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::ServerName;

use crate::engine::instance::Instance;
use crate::upstream::wire::Wire;

/// The name that `expect.tls_name` means for this instance: `{service}` and `{label.KEY}` are its own.
///
/// # Errors
/// It has no such label, in words.
pub(super) fn name_of(written: &str, instance: &Instance) -> Result<String, String> {
    let mut name = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('{') {
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        let value = match place.strip_prefix("label.") {
            None => &*instance.service,
            Some(key) => {
                let value = instance.labels.value(key);
                value.ok_or_else(|| format!("the instance has no label `{key}`"))?
            }
        };
        name.push_str(before);
        name.push_str(value);
        rest = after;
    }
    name.push_str(rest);
    Ok(name)
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::instance;

    #[test]
    fn a_name_is_made_of_what_the_instance_is_called() {
        let web = instance("web", "web-1", 80, &[("zone", "eu"), ("dotted.key", "x")]);
        assert_eq!(name_of("web.internal", &web).as_deref(), Ok("web.internal"));
        assert_eq!(name_of("{service}.{label.zone}.internal", &web).as_deref(), Ok("web.eu.internal"));
        assert_eq!(name_of("{label.dotted.key}", &web).as_deref(), Ok("x"));
        assert_eq!(name_of("{label.rack}.internal", &web), Err("the instance has no label `rack`".to_owned()));
    }
}
