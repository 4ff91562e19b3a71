//! `upstream: {protocol, tls, proxy_protocol}`: how the instances of the service are spoken to.

use super::read::Reader;
use crate::engine::label::Text;
use crate::engine::policy::Protocol;
use crate::engine::upstream::{Encryption, ProxyVersion, Upstream, UpstreamTls};
use crate::engine::yaml::Node;

/// The whole key.
pub(super) fn upstream(r: &mut Reader<'_>, node: &Node) -> Upstream {
    let Some(mut fields) = r.fields(node, "`upstream`") else { return Upstream::default() };
    let protocols =
        [("http1", Some(Protocol::Http1)), ("h2", Some(Protocol::H2)), ("h2c", Some(Protocol::H2)), ("auto", None)];
    let found = Upstream {
        protocol: fields.take("protocol").and_then(|node| r.word(node, &protocols)).flatten(),
        tls: fields.take("tls").and_then(|node| tls(r, node)),
        proxy_protocol: fields
            .take("proxy_protocol")
            .and_then(|node| r.word(node, &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)])),
    };
    if found.proxy_protocol.is_some() && found.protocol == Some(Protocol::H2) {
        let problem = "a connection that begins with a PROXY head serves one client, and one of HTTP/2 serves many";
        let problem = r.error("E006", node.span, problem).help("leave out `proxy_protocol`, or `protocol: h2`");
        r.push(problem);
    }
    r.close(fields);
    found
}

/// `true`, `false`, or how.
fn tls(r: &mut Reader<'_>, node: &Node) -> Option<Encryption> {
    match node.text() {
        Some("true") => return Some(Encryption::On(UpstreamTls::default())),
        Some("false") => return Some(Encryption::Off),
        Some(_) => {
            return r
                .malformed(node, "`true`, `false`, or a map with `ca`, `cert`, `key`, `name`, `name_label`, `verify`");
        }
        None => {}
    }
    let mut fields = r.fields(node, "`tls`")?;
    let mut text = |key: &'static str, what: &str| -> Option<Text> {
        fields.take(key).and_then(|node| r.text(node, what)).map(Text::from)
    };
    let mut found = UpstreamTls {
        ca: text("ca", "`ca`"),
        cert: text("cert", "`cert`"),
        key: text("key", "`key`"),
        name: text("name", "`name`"),
        name_label: text("name_label", "`name_label`"),
        verify: true,
    };
    if let Some(node) = fields.take("verify") {
        found.verify = r.boolean(node).unwrap_or(true);
    }
    let half = found.cert.is_some() != found.key.is_some();
    for (wrong, why) in [
        (half, "a client certificate needs both `cert` and `key`"),
        (
            found.name.is_some() && found.name_label.is_some(),
            "the name is either fixed (`name`) or on a label (`name_label`)",
        ),
        (!found.verify && found.ca.is_some(), "`verify: false` believes everybody, so `ca` says nothing"),
    ] {
        if wrong {
            r.push(r.error("E006", node.span, why));
        }
    }
    r.close(fields);
    Some(Encryption::On(found))
}
