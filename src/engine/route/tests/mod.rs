//! Deciding, end to end within the engine: rule files built from expressions, pools with made-up counts.

mod naive;
mod property;
mod resort;
mod routing;
mod splits;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::engine::diagnostic::{Diagnostics, Source, Span, Spanned};
use crate::engine::expr::ast::{Expr, Field};
use crate::engine::expr::{Written, parse_field, parse_instance, parse_request};
use crate::engine::label::Text;
use crate::engine::policy::{Min, SlowStart};
use crate::engine::request::RequestView;
use crate::engine::rules::{self, Else, HostPattern, Policies, PoolSpec, Rule, RuleFile, RuleSet};
use crate::engine::time::Draw;
use crate::engine::trace::NoTrace;

/// A router whose pools' counts the test says, by pool name: (members, routable, min).
pub(super) struct Fake {
    router: Router,
    pub(super) counts: Vec<(&'static str, PoolState)>,
    /// Combinations of request labels that somebody has, by pool name.
    pub(super) variants: Vec<(&'static str, Vec<&'static str>)>,
}

impl Resolved for Fake {
    fn router(&self) -> &Router {
        &self.router
    }

    fn pool_state(&self, file: FileIdx, slot: PoolSlot) -> PoolState {
        let file = &self.router.files[file as usize];
        let some = PoolState { members: 1, routable: 1, open: 1, min: 1 };
        let Some(pool) = file.pools.get(slot as usize) else { return some };
        self.counts.iter().find(|(name, _)| *name == &*pool.name).map_or(some, |(_, state)| *state)
    }

    fn variant(&self, file: FileIdx, slot: PoolSlot, values: &[&[u8]]) -> Option<PoolSlot> {
        let name = &self.router.files[file as usize].pools[slot as usize].name;
        let found = self.variants.iter().position(|(pool, has)| {
            *pool == &**name && has.iter().map(|value| value.as_bytes()).eq(values.iter().copied())
        });
        found.map(|at| 1_000 + at as u32)
    }
}

pub(super) fn fake(files: Vec<RuleFile>) -> Fake {
    let set = RuleSet { files: files.into_iter().map(Arc::new).collect() };
    let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
    Fake { router, counts: Vec::new(), variants: Vec::new() }
}

impl Fake {
    /// `members`, `routable`, `min` of a pool.
    pub(super) fn count(mut self, pool: &'static str, members: u32, routable: u32, min: u32) -> Self {
        self.counts.retain(|(name, _)| *name != pool);
        self.counts.push((pool, PoolState { members, routable, open: members, min }));
        self
    }

    pub(super) fn decide(&self, request: &Request, draw: u64) -> Decision {
        decide(self, &request.view(), Draw(draw), &mut Scratch::new(), &mut NoTrace)
    }

    /// Rule and pool as text: `rule/pool`, or what happened instead.
    pub(super) fn outcome(&self, request: &Request, draw: u64) -> String {
        let decision = self.decide(request, draw);
        let Some(file) = decision.file else { return self.shown(None, &decision.outcome) };
        let file = &self.router.files[file as usize];
        let rule = decision.rule.map_or("-", |rule| &file.rules[rule as usize].name);
        format!("{rule}/{}", self.shown(Some(file), &decision.outcome))
    }

    pub(super) fn shown(&self, file: Option<&RouterFile>, outcome: &Outcome) -> String {
        match (outcome, file) {
            (Outcome::Pool(choice), Some(file)) => file.pool_name(choice.pool).to_string(),
            (Outcome::Refuse { status, detail }, _) => format!("{status} {}", detail.word()),
            (other, _) => format!("{other:?}"),
        }
    }
}

/// An owned request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) client: IpAddr,
    pub(super) san: Vec<String>,
    pub(super) trusted: bool,
}

impl Request {
    /// A GET for `host/path?query`.
    pub(super) fn get(url: &str) -> Self {
        let at = url.find('/').expect("host/path");
        let (path, query) = url[at..].split_once('?').map_or((&url[at..], None), |(path, query)| (path, Some(query)));
        Self {
            method: Method::GET,
            host: url[..at].into(),
            path: path.into(),
            query: query.map(Into::into),
            headers: HeaderMap::new(),
            client: IpAddr::from([10, 1, 2, 3]),
            san: Vec::new(),
            trusted: true,
        }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            scheme: "http",
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            client: self.client,
            sni: None,
            san: &self.san,
            trusted: self.trusted,
        }
    }
}

/// A file for service `web` with pools `gray`, `stable` and `other`, and no rule.
pub(super) fn web() -> RuleFile {
    RuleFile {
        source: Source::new("web.yaml", ""),
        service: spanned("web".into()),
        hosts: Vec::new(),
        paths: vec![spanned("/".into())],
        pools: vec![pool("gray", "version == 1.3"), pool("stable", "version == 1.2"), pool("other", "version exists")],
        lanes: None,
        locality: None,
        labels: Vec::new(),
        propagate: Vec::new(),
        trusted: None,
        rules: Vec::new(),
        fallback: None,
        policies: Policies::default(),
        eject: None,
        overload: None,
        check: None,
        slow_start: SlowStart::default(),
        upstream: None,
        tests: Vec::new(),
    }
}

pub(super) fn pool(name: &str, select: &str) -> PoolSpec {
    PoolSpec {
        name: spanned(name.into()),
        select: parse(select, |written, out| parse_instance(written, None, out)),
        min: Min::default(),
        accept: (true, true),
        panic: None,
        balance: None,
        max_ejection_percent: None,
        min_routable: None,
        from_map: false,
    }
}

pub(super) fn rule(name: &str, when: &str, to: &[&str]) -> Rule {
    Rule {
        name: spanned(name.into()),
        span: Span::default(),
        when: (!when.is_empty()).then(|| condition(when)),
        action: rules::Action::To(to.iter().map(|name| spanned((*name).into())).collect()),
        fallback: None,
        policies: Policies::default(),
        salt: name.into(),
    }
}

pub(super) fn split(name: &str, arms: &[(&str, u64)], key: &[&str]) -> Rule {
    let arm = |(to, weight): &(&str, u64)| rules::Arm {
        to: to.split(',').map(|name| spanned(name.into())).collect(),
        weight: *weight,
        span: Span::default(),
    };
    let split = rules::Split {
        arms: arms.iter().map(arm).collect(),
        percents: false,
        key: key.iter().map(|text| spanned(field(text))).collect(),
        mint: true,
        salt: name.into(),
        epoch: 0,
        from_map: false,
    };
    Rule { action: rules::Action::Split(split), ..rule(name, "", &[]) }
}

pub(super) fn host(text: &str) -> Spanned<HostPattern> {
    spanned(match text.strip_prefix("*.") {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact(text.into()),
    })
}

pub(super) fn or_else(fallback: Else) -> Option<Spanned<Else>> {
    Some(spanned(fallback))
}

pub(super) fn condition(text: &str) -> Expr {
    parse(text, |written, out| parse_request(written, None, out))
}

pub(super) fn field(text: &str) -> Field {
    parse(text, |written, out| parse_field(written, None, out))
}

pub(super) fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Span::default())
}

fn parse<T>(text: &str, parser: impl Fn(&Written<'_>, &mut Diagnostics) -> Option<T>) -> T {
    let mut out = Diagnostics::default();
    parser(&Written::whole(&Source::new("t", text)), &mut out).unwrap_or_else(|| panic!("{}", out.render()))
}

pub(super) fn text(text: &str) -> Text {
    text.into()
}
