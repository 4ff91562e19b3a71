//! Where a catalog is: `http://`, `https://` or `unix://`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// One address of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, with or without TLS.
    Tcp {
        /// Whether TLS is spoken.
        tls: bool,
        /// Name or IP, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// A path in front of every request's, without a slash at its end; mostly empty.
        prefix: String,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads one address; `default_port` where it has none.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path {
                "" => Err(format!("`{text}` has no path; write unix:///run/consul.sock")),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let uri: http::Uri = text.parse().map_err(|error| format!("`{text}` is not an address: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{text}` must begin with http://, https:// or unix://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("`{text}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err("an address must not hold a user or a password; use http_auth".to_owned());
        }
        if uri.query().is_some() {
            return Err(format!("`{text}` must not have a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("`{text}` has no host"));
        }
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Self::Tcp { tls, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Whether it never leaves this machine.
    #[must_use]
    pub fn local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// What goes into `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// The path in front of every request's.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self {
            Self::Unix(_) => "",
            Self::Tcp { prefix, .. } => prefix,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { tls, prefix, .. } => {
                write!(f, "http{}://{}{prefix}", if *tls { "s" } else { "" }, self.authority())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shown, local) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500", true),
            ("https://consul.example", "https://consul.example:8500", false),
            ("http://[::1]:18500/consul/", "http://[::1]:18500/consul", true),
            ("unix:///run/consul.sock", "unix:///run/consul.sock", true),
        ] {
            let address = Address::parse(text, 8500).unwrap();
            assert_eq!((address.to_string().as_str(), address.local()), (shown, local));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("127.0.0.1:8500", "http://"),
            ("ftp://a", "http://"),
            ("unix://", "no path"),
            ("http://user:secret@a", "http_auth"),
            ("http://a?token=x", "query"),
        ] {
            let error = Address::parse(text, 8500).unwrap_err();
            assert!(error.contains(word) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
