//! How the instances of a service are spoken to: `upstream:` in a rule file. Only said here; `upstream` does it.

use serde::{Deserialize, Serialize};

use super::instance::Instance;
use super::label::Text;
use super::policy::Protocol;

/// How instances are spoken to. What is not said here is read from an instance's labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// `None`: by the instance's label (`proto`).
    pub protocol: Option<Protocol>,
    /// `None`: to an instance whose label `scheme` is `https`, as by default.
    pub tls: Option<Encryption>,
    /// Each connection begins with a PROXY protocol head that names the client, and serves that client only. Default
    /// none.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// Whether connections to instances are encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Never, whatever the labels say.
    Off,
    /// Always.
    On(UpstreamTls),
}

/// TLS towards instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// Whose certificates are believed, a PEM file. `None`: the system's.
    pub ca: Option<Text>,
    /// Our certificate, a PEM file.
    pub cert: Option<Text>,
    /// Its key.
    pub key: Option<Text>,
    /// The name that an instance's certificate must be for, and that it is asked by.
    pub name: Option<Text>,
    /// The instance's label that says that name. Without either, and for an instance without the label, it is the
    /// instance's host as the catalog gives it.
    pub name_label: Option<Text>,
    /// Whether the certificate is checked at all. Default true.
    pub verify: bool,
}

/// Whether an instance says by its label `scheme` that it speaks TLS.
#[must_use]
pub fn says_https(instance: &Instance) -> bool {
    instance.labels.value("scheme").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { ca: None, cert: None, key: None, name: None, name_label: None, verify: true }
    }
}
