//! Names to fields, on either side, and which operators a field takes.

use std::fmt;

use super::ast::{Builtin, Field};
use crate::engine::diagnostic::nearest;

/// Every form of request field, as people write it.
const REQUEST_FIELDS: [&str; 11] = [
    "method",
    "scheme",
    "host",
    "path",
    "query.NAME",
    "cookie.NAME",
    "header.NAME",
    "client.ip",
    "tls.sni",
    "tls.client.san",
    "label.NAME",
];

/// What a field holds, which decides the operators that make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// Several texts: membership only.
    List,
    /// An IP address: equality and networks only.
    Address,
}

impl Field {
    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Builtin(Builtin::Tags) | Self::TlsClientSan => Kind::List,
            Self::ClientIp => Kind::Address,
            _ => Kind::Text,
        }
    }
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Tags, Self::Id, Self::Node, Self::Address, Self::Port, Self::Dc, Self::Status];

    /// Its name in expressions.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Id => "id",
            Self::Node => "node",
            Self::Address => "address",
            Self::Port => "port",
            Self::Dc => "dc",
            Self::Status => "status",
        }
    }
}

impl fmt::Display for Field {
    /// As it is written in rules.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(name) if plain_name(name) && Builtin::ALL.iter().all(|b| b.word() != &**name) => {
                f.write_str(name)
            }
            Self::Label(name) => write!(f, "labels[{name:?}]"),
            Self::Builtin(builtin) => f.write_str(builtin.word()),
            Self::Method => f.write_str("method"),
            Self::Scheme => f.write_str("scheme"),
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Query(name) if plain_name(name) => write!(f, "query.{name}"),
            Self::Query(name) => write!(f, "query[{name:?}]"),
            Self::Cookie(name) if plain_name(name) => write!(f, "cookie.{name}"),
            Self::Cookie(name) => write!(f, "cookie[{name:?}]"),
            Self::Header(name) if plain_name(name.as_str()) => write!(f, "header.{name}"),
            Self::Header(name) => write!(f, "header[{:?}]", name.as_str()),
            Self::ClientIp => f.write_str("client.ip"),
            Self::TlsSni => f.write_str("tls.sni"),
            Self::TlsClientSan => f.write_str("tls.client.san"),
            Self::RequestLabel(name) => write!(f, "label.{name}"),
        }
    }
}

/// Why a name is no field: code, message, words under the carets.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) label: Option<String>,
}

impl Unknown {
    fn new(code: &'static str, message: String, label: Option<String>) -> Self {
        Self { code, message, label }
    }
}

/// The instance's field of this name.
pub(super) fn instance(name: &str) -> Result<Field, Unknown> {
    if let Some(builtin) = Builtin::ALL.into_iter().find(|b| b.word() == name) {
        return Ok(Field::Builtin(builtin));
    }
    if name.starts_with("label.") {
        return Err(Unknown::new(
            "E025",
            format!("`{name}` may stand only on the right of `==`"),
            Some("write the instance's own label on the left".to_owned()),
        ));
    }
    let of_request = ["header.", "cookie.", "query."].iter().any(|prefix| name.starts_with(prefix))
        || ["client.ip", "tls.sni", "tls.client.san"].contains(&name);
    if of_request {
        return Err(Unknown::new(
            "E026",
            format!("`{name}` is a field of the request; pools select instances"),
            Some(format!("ask for it in `when`; an instance's label of that name is `labels[\"{name}\"]`")),
        ));
    }
    if !plain_name(name) {
        return Err(Unknown::new(
            "E020",
            format!("`{name}` is not a plain name"),
            Some(format!("write `labels[\"{name}\"]`")),
        ));
    }
    Ok(Field::Label(name.into()))
}

/// The request's field of this name.
pub(super) fn request(name: &str) -> Result<Field, Unknown> {
    match name {
        "method" => return Ok(Field::Method),
        "scheme" => return Ok(Field::Scheme),
        "host" => return Ok(Field::Host),
        "path" => return Ok(Field::Path),
        "client.ip" => return Ok(Field::ClientIp),
        "tls.sni" => return Ok(Field::TlsSni),
        "tls.client.san" => return Ok(Field::TlsClientSan),
        _ => {}
    }
    match name.split_once('.') {
        Some((family, rest)) if !rest.is_empty() && FAMILIES.contains(&family) => member(family, rest),
        _ => Err(unknown(name)),
    }
}

/// The families whose members are named by the user.
pub(super) const FAMILIES: [&str; 4] = ["header", "cookie", "query", "label"];

/// `header.NAME`, `cookie["NAME"]` and their like.
pub(super) fn member(family: &str, name: &str) -> Result<Field, Unknown> {
    match family {
        "header" => http::HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map(Field::Header)
            .map_err(|_| Unknown::new("E030", format!("`{name}` cannot be the name of a header"), None)),
        "cookie" => Ok(Field::Cookie(name.into())),
        "query" => Ok(Field::Query(name.into())),
        "label" => Ok(Field::RequestLabel(name.into())),
        _ => Err(unknown(family)),
    }
}

fn unknown(name: &str) -> Unknown {
    let message = format!("`{name}` is not a field of the request");
    let family = name.split_once('.').and_then(|(family, rest)| {
        nearest(family, FAMILIES).filter(|_| !rest.is_empty()).map(|near| format!("{near}.{rest}"))
    });
    let near = family.or_else(|| match name {
        "header" | "headers" | "cookie" | "cookies" | "query" | "label" | "labels" => {
            Some(format!("{}.NAME", nearest(name, FAMILIES).unwrap_or(name)))
        }
        "client" | "ip" | "remote_addr" => Some("client.ip".to_owned()),
        _ => nearest(name, REQUEST_FIELDS).map(str::to_owned),
    });
    let label = near.map(|near| format!("did you mean `{near}`?"));
    Unknown::new("E021", message, label.or_else(|| Some(format!("known: {}", REQUEST_FIELDS.join(", ")))))
}

/// A name that needs no brackets: `NAME {"." NAME}`.
fn plain_name(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    })
}
