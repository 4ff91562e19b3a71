//! Rule files, catalogs and requests as plain values: what is generated, written out as YAML for the engine, and judged
//! by `naive` without it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything that decides.
#[derive(Clone, Debug)]
pub struct World {
    pub files: Vec<File>,
    pub instances: Vec<Instance>,
    pub region: Option<&'static str>,
    pub zone: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub id: String,
    pub service: &'static str,
    pub labels: BTreeMap<&'static str, &'static str>,
    pub tags: Vec<&'static str>,
    /// When passing, when warning.
    pub weights: (u32, u32),
    pub status: &'static str,
}

#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub service: &'static str,
    pub hosts: Vec<&'static str>,
    pub paths: Vec<&'static str>,
    pub pools: Vec<Pool>,
    /// The base values of the label `lane`.
    pub lanes: Option<Vec<&'static str>>,
    pub prefer: Vec<&'static str>,
    /// In tenths.
    pub spill: u64,
    pub min_local: u64,
    /// The label `l`: the fields it is read from, and a fixed value after them.
    pub label: Option<(Vec<Field>, Option<&'static str>)>,
    pub trusted: Option<&'static str>,
    pub rules: Vec<Rule>,
    pub fallback: Option<Else>,
}

#[derive(Clone, Debug)]
pub struct Pool {
    pub name: &'static str,
    pub select: Select,
    pub min: Min,
    /// Whether instances that warn are taken.
    pub warning: bool,
    /// `any` (true) or `fail`.
    pub panic: Option<bool>,
    pub random: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Min {
    Count(u64),
    Percent(u64),
}

#[derive(Clone, Debug)]
pub enum Select {
    Is(&'static str, &'static str),
    IsNot(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    Has(&'static str),
    Below(&'static str, &'static str),
    Tag(&'static str),
    /// This label equals the request's label `l`.
    Asked(&'static str),
    And(Vec<Select>),
    Or(Vec<Select>),
    Not(Box<Select>),
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub when: Option<Condition>,
    pub action: Action,
    pub fallback: Option<Else>,
}

#[derive(Clone, Debug)]
pub enum Action {
    To(Vec<&'static str>),
    Split(Split),
    Redirect(u16),
    Respond(u16),
}

#[derive(Clone, Debug)]
pub struct Split {
    /// Pools and weight.
    pub arms: Vec<(Vec<&'static str>, u64)>,
    pub key: Vec<Field>,
    pub mint: bool,
    pub epoch: u32,
    pub salt: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub enum Else {
    Any,
    Status(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Header(&'static str),
    Cookie(&'static str),
    Query(&'static str),
    Method,
    Scheme,
    Host,
    Path,
    Label,
}

#[derive(Clone, Debug)]
pub enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Test(Field, Op),
    /// Of the first present field, below (or not below) so many percent.
    Percent(Vec<Field>, bool, u64),
    /// The client's address in this network.
    From(&'static str),
}

#[derive(Clone, Debug)]
pub enum Op {
    Is(&'static str),
    IsNot(&'static str),
    In(Vec<&'static str>),
    NotIn(Vec<&'static str>),
    Exists,
    Starts(&'static str),
    Ends(&'static str),
    Contains(&'static str),
    Under(&'static str),
    /// By place in [`PATTERNS`].
    Matches(usize),
    Order(&'static str, &'static str),
}

/// Whether a value is taken.
type Meaning = fn(&str) -> bool;

/// Patterns, and what each means when it takes the whole value.
pub const PATTERNS: [(&str, Meaning); 5] = [
    ("a|b", |v| v == "a" || v == "b"),
    ("a.*", |v| v.starts_with('a')),
    ("[ab]+", |v| !v.is_empty() && v.bytes().all(|b| b == b'a' || b == b'b')),
    (".*b", |v| v.ends_with('b')),
    ("/a(/.*)?", |v| v == "/a" || v.starts_with("/a/")),
];

/// A request: as sent, and as the rules see it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub host: (&'static str, &'static str),
    pub path: (&'static str, &'static str),
    /// Name, as sent, decoded.
    pub query: Vec<(&'static str, &'static str, &'static str)>,
    pub headers: Vec<(&'static str, &'static str)>,
    pub cookies: Vec<(String, String)>,
}

impl Request {
    pub fn target(&self) -> String {
        let pairs: Vec<String> = self.query.iter().map(|(name, sent, _)| format!("{name}={sent}")).collect();
        if pairs.is_empty() { self.path.0.into() } else { format!("{}?{}", self.path.0, pairs.join("&")) }
    }

    pub fn cookie_field(&self) -> Option<String> {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// As bytes on a connection.
    pub fn wire(&self) -> String {
        let mut out = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", self.method, self.target(), self.host.0);
        self.headers.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\r\n")));
        self.cookie_field().iter().for_each(|field| out.push_str(&format!("cookie: {field}\r\n")));
        if self.method == "POST" {
            out.push_str("content-length: 0\r\n");
        }
        out + "\r\n"
    }

    /// As a traffic line with this draw.
    pub fn line(&self, draw: &str) -> serde_json::Value {
        let mut headers = serde_json::Map::new();
        let cookie = self.cookie_field();
        let all = self.headers.iter().copied().chain(cookie.as_deref().map(|field| ("cookie", field)));
        for (name, value) in all {
            let values = headers.entry(name).or_insert_with(|| serde_json::json!([]));
            values.as_array_mut().unwrap().push(value.into());
        }
        serde_json::json!({"method": self.method, "host": self.host.0, "path": self.target(), "headers": headers,
                           "client": "127.0.0.1", "draw": draw})
    }
}

impl File {
    /// The file as an operator would write it.
    pub fn yaml(&self) -> String {
        let mut out = format!("service: {}\n", self.service);
        if !self.hosts.is_empty() {
            let _ = writeln!(out, "hosts: [{}]", self.hosts.iter().map(|h| quoted(h)).collect::<Vec<_>>().join(", "));
        }
        let _ = writeln!(out, "paths: [{}]", self.paths.join(", "));
        if let Some(base) = &self.lanes {
            let _ = writeln!(out, "lanes: {{label: lane, base: [{}]}}", base.join(", "));
        }
        if !self.prefer.is_empty() {
            let (prefer, spill) = (self.prefer.join(", "), format!("{}.{}", self.spill / 10, self.spill % 10));
            let _ = writeln!(out, "locality: {{prefer: [{prefer}], spill: {spill}, min_local: {}}}", self.min_local);
        }
        if let Some((fields, fixed)) = &self.label {
            let fields = fields.iter().map(Field::text).chain(fixed.map(quoted));
            let _ = writeln!(out, "labels: {{l: [{}]}}", fields.collect::<Vec<_>>().join(", "));
        }
        self.trusted.iter().for_each(|network| out.push_str(&format!("trusted: ['{network}']\n")));
        self.fallback.iter().for_each(|fallback| out.push_str(&format!("else: {}\n", fallback.text())));
        out.push_str("pools:\n");
        for pool in &self.pools {
            let min = match pool.min {
                Min::Count(count) => count.to_string(),
                Min::Percent(percent) => format!("{percent}%"),
            };
            let accept = if pool.warning { "[passing, warning]" } else { "[passing]" };
            let panic = pool.panic.map_or("", |any| if any { ", panic: any" } else { ", panic: fail" });
            let balance = if pool.random { ", balance: random" } else { "" };
            let select = pool.select.text().replace('"', "\\\"");
            let _ = writeln!(
                out,
                "  {}: {{select: \"{select}\", min: {min}, accept: {accept}{panic}{balance}}}",
                pool.name
            );
        }
        out.push_str("rules:\n");
        self.rules.iter().for_each(|rule| out.push_str(&rule.yaml()));
        out
    }
}

impl Rule {
    fn yaml(&self) -> String {
        let mut out = format!("  - name: {}\n", self.name);
        if let Some(when) = &self.when {
            let _ = writeln!(out, "    when: >-\n      {}", when.text());
        }
        let _ = match &self.action {
            Action::To(pools) => writeln!(out, "    to: [{}]", pools.join(", ")),
            Action::Redirect(status) => writeln!(out, "    redirect: {{status: {status}, location: /elsewhere}}"),
            Action::Respond(status) => writeln!(out, "    respond: {status}"),
            Action::Split(split) => {
                let arm =
                    |(pools, weight): &(Vec<&str>, u64)| format!("{{to: [{}], share: {weight}}}", pools.join(", "));
                let _ = writeln!(out, "    split: [{}]", split.arms.iter().map(arm).collect::<Vec<_>>().join(", "));
                if !split.key.is_empty() {
                    let key = split.key.iter().map(Field::text).collect::<Vec<_>>().join(", ");
                    let _ = writeln!(out, "    key: [{key}]\n    mint: {}", split.mint);
                }
                split.salt.iter().for_each(|salt| out.push_str(&format!("    salt: {salt}\n")));
                if split.epoch > 0 { writeln!(out, "    epoch: {}", split.epoch) } else { Ok(()) }
            }
        };
        self.fallback.iter().for_each(|fallback| out.push_str(&format!("    else: {}\n", fallback.text())));
        out
    }
}

impl Else {
    fn text(self) -> String {
        match self {
            Self::Any => "any".into(),
            Self::Status(status) => status.to_string(),
        }
    }
}

impl Field {
    pub fn text(&self) -> String {
        match self {
            Self::Header(name) => format!("header.{name}"),
            Self::Cookie(name) => format!("cookie.{name}"),
            Self::Query(name) => format!("query.{name}"),
            Self::Method => "method".into(),
            Self::Scheme => "scheme".into(),
            Self::Host => "host".into(),
            Self::Path => "path".into(),
            Self::Label => "label.l".into(),
        }
    }
}

impl Select {
    fn text(&self) -> String {
        match self {
            Self::Is(label, value) => format!("{label} == {}", quoted(value)),
            Self::IsNot(label, value) => format!("{label} != {}", quoted(value)),
            Self::In(label, values) => format!("{label} in [{}]", list(values)),
            Self::Has(label) => format!("{label} exists"),
            Self::Below(label, value) => format!("{label} < {value}"),
            Self::Tag(tag) => format!("{} in tags", quoted(tag)),
            Self::Asked(label) => format!("{label} == label.l"),
            Self::And(parts) => parts.iter().map(|part| part.inner()).collect::<Vec<_>>().join(" and "),
            Self::Or(parts) => parts.iter().map(|part| part.inner()).collect::<Vec<_>>().join(" or "),
            Self::Not(part) => format!("not {}", part.inner()),
        }
    }

    fn inner(&self) -> String {
        match self {
            Self::And(_) | Self::Or(_) | Self::Not(_) => format!("({})", self.text()),
            _ => self.text(),
        }
    }
}

impl Condition {
    fn text(&self) -> String {
        match self {
            Self::And(parts) => format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(" and ")),
            Self::Or(parts) => format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(" or ")),
            Self::Not(part) => format!("(not {})", part.text()),
            Self::Percent(fields, below, share) => {
                let fields = fields.iter().map(Field::text).collect::<Vec<_>>().join(", ");
                format!("percent({fields}) {} {share}", if *below { "<" } else { ">=" })
            }
            Self::From(network) => format!("client.ip in [{network}]"),
            Self::Test(field, op) => {
                let op = match op {
                    Op::Is(value) => format!("== {}", quoted(value)),
                    Op::IsNot(value) => format!("!= {}", quoted(value)),
                    Op::In(values) => format!("in [{}]", list(values)),
                    Op::NotIn(values) => format!("not in [{}]", list(values)),
                    Op::Exists => "exists".into(),
                    Op::Starts(value) => format!("starts {}", quoted(value)),
                    Op::Ends(value) => format!("ends {}", quoted(value)),
                    Op::Contains(value) => format!("contains {}", quoted(value)),
                    Op::Under(value) => format!("under {}", quoted(value)),
                    Op::Matches(at) => format!("matches '{}'", PATTERNS[*at].0),
                    Op::Order(sign, version) => format!("{sign} {version}"),
                };
                format!("{} {op}", field.text())
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

fn list(values: &[&str]) -> String {
    values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ")
}
