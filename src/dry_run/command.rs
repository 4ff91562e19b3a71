//! The command that explains a request: what reports print beside an example, ready to be pasted into a shell.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::engine::expr::ast::Field;
use crate::engine::format::traffic::{TrafficRequest, shown_draw};
use crate::engine::route::{FileIdx, Router};
use crate::engine::time::Draw;

/// What stands before the request in such a command.
#[derive(Clone, Debug)]
pub struct Explain {
    base: String,
}

impl Explain {
    /// For these rules, this catalog and this place of the proxy.
    #[must_use]
    pub fn new(rules: &[PathBuf], catalog: Option<&Path>, place: &[(&str, Option<&str>)]) -> Self {
        let mut base = String::from("pointsman explain");
        for path in rules {
            let _ = write!(base, " --rules {}", quoted(&path.display().to_string()));
        }
        if let Some(catalog) = catalog {
            let _ = write!(base, " --catalog {}", quoted(&catalog.display().to_string()));
        }
        for (flag, value) in place {
            if let Some(value) = value {
                let _ = write!(base, " --{flag} {}", quoted(value));
            }
        }
        Self { base }
    }

    /// For the live proxy with this admin address.
    #[must_use]
    pub fn live(admin: &str) -> Self {
        Self { base: format!("pointsman explain --admin {}", quoted(admin)) }
    }

    /// The whole command for a captured request. `headers` are those worth naming.
    #[must_use]
    pub fn request(&self, request: &TrafficRequest, headers: &[(HeaderName, HeaderValue)], draw: Draw) -> String {
        let mut out = self.base.clone();
        if let Some(sni) = &request.sni {
            let _ = write!(out, " --sni {}", quoted(sni));
        }
        for name in &request.san {
            let _ = write!(out, " --san {}", quoted(name));
        }
        let passed_on = request.method == Method::CONNECT && request.scheme == "https";
        match (passed_on, &request.sni) {
            // Its name says it all.
            (true, Some(_)) => {}
            (true, None) => out.push_str(" --sni ''"),
            _ => drop(write!(out, " {} {}", request.method, quoted(&url(request)))),
        }
        for (name, value) in headers {
            let _ = write!(out, " -H {}", quoted(&format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))));
        }
        let _ = write!(out, " --client {} --draw {}", request.client, shown_draw(draw));
        out
    }
}

/// The request's URL, normalised as the rules see it.
#[must_use]
pub fn url(request: &TrafficRequest) -> String {
    let query = request.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
    format!("{}://{}{}{query}", request.scheme, request.host, request.path)
}

/// The headers of a request that a file's rules read, its stickiness cookie included.
#[must_use]
pub fn read_headers(router: &Router, file: Option<FileIdx>, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let Some(file) = file.map(|file| &router.files[file as usize]) else { return Vec::new() };
    let cookies = headers.contains_key(http::header::COOKIE);
    let read = |name: &HeaderName| {
        let by_slot = file.fields.slots.iter().any(|slot| match &slot.field {
            Field::Header(field) => field == name,
            Field::Cookie(_) => name == http::header::COOKIE,
            _ => false,
        });
        by_slot || (cookies && name == http::header::COOKIE)
    };
    headers.iter().filter(|(name, _)| read(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// As one word of a POSIX shell.
#[must_use]
pub fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,@%+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("rules/web.yaml"), "rules/web.yaml");
        assert_eq!(quoted("http://a/b?x=1&y"), "'http://a/b?x=1&y'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
