//! One case: what it expects against what the engine decides.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;
use serde::Serialize;

use super::Case;
use super::coverage::{Coverage, Watch};
use super::world::{Standing, World};
use crate::dry_run::command::{Explain, url};
use crate::dry_run::inputs::Rules;
use crate::engine::diagnostic::Span;
use crate::engine::format::traffic::TrafficRequest;
use crate::engine::label::Text;
use crate::engine::policy::WHOLE;
use crate::engine::route::{
    Action, Decision, Outcome, RouterFile, Scratch, Spread, decide, path, spread, spread_of_keys,
};
use crate::engine::rules::lint::ANY_NAME;
use crate::engine::rules::{HostPattern, SERVICE_PLACE};
use crate::engine::time::Draw;

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The file it stands in.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// Method and URL.
    pub request: String,
    /// What is otherwise than expected; empty: it passed.
    pub failures: Vec<Failure>,
    /// The command that explains the request.
    pub explain: String,
}

/// One expectation that was not met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// The line of the expectation.
    pub line: usize,
    /// `rule`, `pool`, `status`, `share`, `labels` or `request`.
    pub what: String,
    /// What the case says.
    pub expected: String,
    /// What is.
    pub actual: String,
}

/// Judges a case, and notes what it covers.
pub(super) fn judge(world: &World, rules: &Rules, case: &Case, explain: &Explain, coverage: &mut Coverage) -> Verdict {
    let line = |span: Span| case.source.position(span.start).0;
    let mut verdict = Verdict {
        file: case.source.name.clone(),
        line: line(case.test.span),
        request: format!("{} {}", case.test.method, case.test.target),
        failures: Vec::new(),
        explain: String::new(),
    };
    let request = match request(case, rules) {
        Ok(request) => request,
        Err(why) => {
            let (expected, actual) = ("a request that can be sent".into(), format!("400: {why}"));
            let failure = Failure { line: verdict.line, what: "request".into(), expected, actual };
            return Verdict { failures: vec![failure], ..verdict };
        }
    };
    verdict.request = format!("{} {}", request.method, url(&request));
    verdict.explain = explain.request(&request, &case.test.headers, Draw(0));
    let standing = Standing { world, down: &case.test.down };
    let view = request.view(world.router().trusts(&request.host, &request.path, request.sender()));
    let mut watch = Watch::default();
    let decision = decide(&standing, &view, Draw(0), &mut Scratch::new(), &mut watch);
    let judged = Judged {
        file: decision.file.map(|file| &*world.router().files[file as usize]),
        here: spread(&standing, &decision),
        everybody: spread_of_keys(&standing, &decision),
        world,
        decision,
    };
    coverage.note(&judged, &watch, !case.test.expect.share.is_empty());
    let mut fail = |what: String, span: Span, expected: String, actual: String| {
        verdict.failures.push(Failure { line: line(span), what, expected, actual });
    };
    let expect = &case.test.expect;
    if let Some(rule) = &expect.rule
        && judged.rule() != Some(&rule.value)
    {
        fail("rule".into(), rule.span, rule.value.to_string(), judged.came_to());
    }
    if let Some(pool) = &expect.pool
        && !judged.here.parts.iter().all(|part| judged.pool(part.outcome) == Some(&pool.value))
    {
        fail("pool".into(), pool.span, pool.value.to_string(), judged.shown(&judged.here));
    }
    if let Some(status) = expect.status
        && judged.status() != Some(status)
    {
        let actual = judged.status().map_or_else(|| judged.shown(&judged.here), |status| status.to_string());
        fail("status".into(), case.test.span, status.to_string(), actual);
    }
    for (pool, share) in &expect.share {
        if !judged.has_share(&pool.value, *share) {
            let what = format!("share of {}", pool.value);
            fail(what, pool.span, shown_share(u64::from(*share), u64::from(WHOLE)), judged.shown(&judged.everybody));
        }
    }
    for (label, value) in &expect.labels {
        if let Some(actual) = judged.differs(label, &value.value) {
            fail(format!("label {label}"), value.span, value.value.to_string(), actual);
        }
    }
    verdict
}

/// A decided case.
pub(super) struct Judged<'w> {
    pub(super) file: Option<&'w RouterFile>,
    pub(super) decision: Decision,
    /// Over this request's luck.
    pub(super) here: Spread,
    /// Over everybody's keys.
    pub(super) everybody: Spread,
    world: &'w World,
}

impl<'w> Judged<'w> {
    fn rule(&self) -> Option<&'w Text> {
        Some(&self.file?.rules[self.decision.rule? as usize].name)
    }

    fn pool(&self, outcome: Outcome) -> Option<&'w Text> {
        match (outcome, self.file) {
            (Outcome::Pool(choice), Some(file)) => Some(file.pool_name(choice.pool)),
            _ => None,
        }
    }

    /// The status of an answer that no instance gives.
    fn status(&self) -> Option<u16> {
        let rule = self.file.zip(self.decision.rule).map(|(file, rule)| &file.rules[rule as usize].action);
        match (self.decision.outcome, rule) {
            (Outcome::Refuse { status, .. }, _) => Some(status),
            (Outcome::Redirect, Some(Action::Redirect { status, .. }))
            | (Outcome::Respond, Some(Action::Respond { status, .. })) => Some(*status),
            _ => None,
        }
    }

    /// Exact: within less than one part per million, which is what a share can be written to.
    fn has_share(&self, pool: &Text, ppm: u32) -> bool {
        let weight: u64 = self
            .everybody
            .parts
            .iter()
            .filter(|part| self.pool(part.outcome) == Some(pool))
            .map(|part| part.weight)
            .sum();
        let (is, wanted) = (u128::from(weight) * u128::from(WHOLE), u128::from(ppm) * u128::from(self.everybody.total));
        is.abs_diff(wanted) < u128::from(self.everybody.total)
    }

    fn came_to(&self) -> String {
        match (self.rule(), self.file) {
            (Some(rule), _) => rule.to_string(),
            (None, Some(file)) => format!("no rule of {} matched", file.service),
            (None, None) => "no file claims this host and path".to_owned(),
        }
    }

    /// Where it goes: `gray`, `gray 5%, stable 95%`, `503 no_routable_instance`.
    fn shown(&self, spread: &Spread) -> String {
        let mut pools: Vec<(String, u64)> = Vec::new();
        for part in &spread.parts {
            let name = match (self.pool(part.outcome), part.outcome) {
                (Some(pool), _) => pool.to_string(),
                (None, Outcome::Refuse { status, detail }) => format!("{status} {}", detail.word()),
                (None, _) => self.status().map_or_else(String::new, |status| status.to_string()),
            };
            match pools.iter_mut().find(|(known, _)| *known == name) {
                Some((_, weight)) => *weight += part.weight,
                None => pools.push((name, part.weight)),
            }
        }
        if let [(only, _)] = pools.as_slice() {
            return only.clone();
        }
        let share = |(name, weight): &(String, u64)| format!("{name} {}", shown_share(*weight, spread.total));
        pools.iter().map(share).collect::<Vec<_>>().join(", ")
    }

    /// Somebody who may be picked and has another value.
    fn differs(&self, label: &str, value: &str) -> Option<String> {
        let World::Table(table) = self.world else { return Some("not known without --catalog".into()) };
        let mut found = false;
        for part in &self.here.parts {
            let (Outcome::Pool(choice), Some(file)) = (part.outcome, self.decision.file) else { continue };
            for (endpoint, _) in crate::dry_run::diff::shares(table, file, &self.decision, choice.slot, choice.step) {
                let instance = &table.endpoint(file, endpoint).instance;
                found = true;
                match instance.labels.value(label) {
                    Some(is) if is == value => {}
                    Some(is) => return Some(format!("{is} ({})", instance.id)),
                    None => return Some(format!("nothing ({})", instance.id)),
                }
            }
        }
        (!found).then(|| self.shown(&self.here))
    }
}

/// `5%`, `33.3333%`.
fn shown_share(weight: u64, total: u64) -> String {
    let ppm = (u128::from(weight) * u128::from(WHOLE) + u128::from(total) / 2) / u128::from(total.max(1));
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The request of a case as the proxy would see it. The host that it leaves out is the first of its file.
fn request(case: &Case, rules: &Rules) -> Result<TrafficRequest, String> {
    let test = &case.test;
    let (raw, query) = match test.target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (&*test.target, None),
    };
    let mut headers = HeaderMap::with_capacity(test.headers.len());
    for (name, value) in &test.headers {
        headers.append(name.clone(), value.clone());
    }
    let path = path::normalise(raw).map_err(|why| why.to_string())?.into_owned();
    Ok(TrafficRequest {
        method: test.method.clone(),
        scheme: test.scheme.to_string(),
        host: host(case, rules),
        path,
        query,
        headers,
        client: test.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical(),
        peer: None,
        sni: None,
        san: Vec::new(),
        draw: None,
    })
}

/// The host that a case asks for: its own, or the first one of its file, where any service is `test`.
pub(super) fn host(case: &Case, rules: &Rules) -> String {
    case.test.host.as_ref().map_or_else(|| first_host(case, rules), ToString::to_string)
}

fn first_host(case: &Case, rules: &Rules) -> String {
    let file = &rules.set.files[case.beside.unwrap_or(0) as usize];
    match file.hosts.first().map(|host| &host.value) {
        Some(HostPattern::Exact(host)) => host.replace(SERVICE_PLACE, ANY_NAME),
        Some(HostPattern::Wildcard(suffix)) => format!("test.{}", suffix.replace(SERVICE_PLACE, ANY_NAME)),
        None => "localhost".into(),
    }
}
