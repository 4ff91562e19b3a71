//! From a model to a request that can be sent, and what the engine must say of it before it is shown.

use std::net::IpAddr;

use super::prove::{Model, Want};
use crate::engine::expr::ast::{Field, Op, Operand};
use crate::engine::label::Text;
use crate::engine::rules::ruleset::{HostPattern, LabelSource, RuleFile, SERVICE_PLACE};

/// Presence, for demands of our own.
pub(super) static EXISTS: Op = Op::Exists;
/// The host, for demands of our own.
pub(super) static HOST: Field = Field::Host;
/// The path, for demands of our own.
pub(super) static PATH: Field = Field::Path;
/// The method, for demands of our own.
pub(super) static METHOD: Field = Field::Method;

/// The service that a request to a file for every service asks for, where nothing says which.
pub const ANY_NAME: &str = "test";

/// A request to confirm a finding with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Scheme, host, path and query.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The peer; `None`: any, 127.0.0.1 for instance.
    pub client: Option<IpAddr>,
}

/// What must become of the request. Files by their source's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This rule takes it.
    Rule {
        /// The file.
        file: String,
        /// The rule.
        rule: Text,
    },
    /// Another rule of the file takes it.
    NotRule {
        /// The file.
        file: String,
        /// The rule that does not.
        rule: Text,
    },
    /// The file claims it and no rule takes it.
    NoRule {
        /// The file.
        file: String,
    },
}

/// A request that shows a finding, to be asked of the engine.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The request.
    pub request: Request,
    /// What must come out for it to be shown.
    pub expect: Expect,
    /// The finding stands and falls with it.
    pub needed: bool,
}

/// What a file claims, as demands.
#[derive(Debug)]
pub(super) struct Frame {
    hosts: Vec<Op>,
    paths: Vec<Op>,
}

impl Frame {
    pub(super) fn of(file: &RuleFile) -> Self {
        let hosts = file.hosts.iter().map(|host| match &host.value {
            // Any service may stand there: of what comes before nothing is known.
            HostPattern::Exact(host) | HostPattern::Wildcard(host) if host.contains(SERVICE_PLACE) => {
                Op::Ends(host.rsplit(SERVICE_PLACE).next().unwrap_or_default().into())
            }
            HostPattern::Exact(host) => Op::Equal(Operand::Text(Text::clone(host))),
            HostPattern::Wildcard(suffix) => Op::Ends(format!(".{suffix}").into()),
        });
        let all = file.paths.iter().any(|path| &*path.value == "/");
        let paths = file.paths.iter().filter(|_| !all).map(|path| Op::Under(Text::clone(&path.value)));
        Self { hosts: hosts.collect(), paths: paths.collect() }
    }

    /// Every request of the file meets these.
    pub(super) fn wants(&self) -> Vec<Want<'_>> {
        let any = |field: &'static Field, ops| -> Option<Want<'_>> {
            let ops: &Vec<Op> = ops;
            (!ops.is_empty()).then(|| Want::Any(ops.iter().map(|op| Want::Test(field, op, true)).collect()))
        };
        [any(&HOST, &self.hosts), any(&PATH, &self.paths)].into_iter().flatten().collect()
    }
}

/// The request that a model describes; `None` where no client can send it, or the command line cannot.
pub(super) fn request(model: &Model, file: &RuleFile) -> Option<Request> {
    let mut draft = Draft::new(file);
    let (labels, plain): (Vec<_>, Vec<_>) =
        model.iter().partition(|(field, _)| matches!(field, Field::RequestLabel(_)));
    for (field, value) in plain {
        draft.set(field, value.as_deref())?;
    }
    for (field, value) in labels {
        let Field::RequestLabel(name) = field else { continue };
        let sources = &file.labels.iter().find(|label| label.name.value == *name)?.sources;
        let fixed = sources.iter().find_map(|source| match source {
            LabelSource::Fixed(text) => Some(text),
            LabelSource::Field(_) => None,
        });
        let mut open = sources.iter().filter_map(|source| match source {
            LabelSource::Field(field) if !model.iter().any(|(other, _)| other == field) => Some(field),
            _ => None,
        });
        match value {
            Some(value) if fixed != Some(value) => draft.set(open.next()?, Some(value))?,
            None if fixed.is_some() => return None,
            _ => {}
        }
    }
    draft.finish(model, file)
}

struct Draft {
    method: String,
    scheme: String,
    host: String,
    path: String,
    query: Vec<String>,
    cookies: Vec<String>,
    headers: Vec<(String, String)>,
    client: Option<IpAddr>,
}

impl Draft {
    fn new(file: &RuleFile) -> Self {
        let host = match file.hosts.first().map(|host| &host.value) {
            Some(HostPattern::Exact(host)) => host.replace(SERVICE_PLACE, ANY_NAME),
            Some(HostPattern::Wildcard(suffix)) => format!("www.{}", suffix.replace(SERVICE_PLACE, ANY_NAME)),
            None => "www.example.com".to_owned(),
        };
        Self {
            method: "GET".to_owned(),
            scheme: "http".to_owned(),
            host,
            path: file.paths.first().map_or("/".to_owned(), |path| path.value.to_string()),
            query: Vec::new(),
            cookies: Vec::new(),
            headers: Vec::new(),
            client: None,
        }
    }

    fn set(&mut self, field: &Field, value: Option<&str>) -> Option<()> {
        let Some(value) = value else { return Some(()) };
        match field {
            Field::Method => value.clone_into(&mut self.method),
            Field::Scheme => value.clone_into(&mut self.scheme),
            Field::Host => value.clone_into(&mut self.host),
            Field::Path => value.clone_into(&mut self.path),
            Field::Query(name) => self.query.push(format!("{}={}", escaped(name), escaped(value))),
            Field::Cookie(name) => {
                let sound = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"\";,\\".contains(&b));
                if !sound(name) || !sound(value) || name.contains('=') {
                    return None;
                }
                self.cookies.push(format!("{name}={value}"));
            }
            Field::Header(name) => {
                let sound = value.trim() == value && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
                // The command line reads `Host` as the URL's.
                if !sound || *name == http::header::HOST {
                    return None;
                }
                self.headers.push((name.as_str().to_owned(), value.to_owned()));
            }
            Field::ClientIp => self.client = Some(value.parse().ok()?),
            Field::TlsSni | Field::TlsClientSan | Field::RequestLabel(_) | Field::Label(_) | Field::Builtin(_) => {
                return None;
            }
        }
        Some(())
    }

    fn finish(mut self, model: &Model, file: &RuleFile) -> Option<Request> {
        if !self.cookies.is_empty() {
            self.headers.push(("cookie".to_owned(), self.cookies.join("; ")));
        }
        let reads_client = model.iter().any(|(field, _)| *field == Field::ClientIp);
        let control = !file.labels.is_empty();
        if let (false, true, Some(network)) = (reads_client, control, file.trusted.as_ref().and_then(|t| t.first())) {
            self.client = network.hosts().next();
        }
        let plain = |b: u8| b.is_ascii_graphic() && !b"?#\\%\"<>`{}|^".contains(&b);
        if !self.path.bytes().all(plain)
            || self.host.is_empty()
            || http::Method::from_bytes(self.method.as_bytes()).is_err()
        {
            return None;
        }
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query.join("&")) };
        let url = format!("{}://{}{}{query}", self.scheme, self.host, self.path);
        Some(Request { method: self.method, url, headers: self.headers, client: self.client })
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
