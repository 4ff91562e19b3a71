//! One rule file, from its top.

use std::sync::Arc;

use super::read::Reader;
use super::ruleset::{Else, RuleFile};
use super::{cases, check, health, labels, overload, places, policies, pools, rule, upstream};
use crate::engine::diagnostic::{Diagnostics, Source, Span, Spanned, nearest};
use crate::engine::label::Text;
use crate::engine::yaml::{self, Node};

/// A file, and where it says what belongs to the instances of its service.
pub(super) struct Parsed {
    pub(super) file: RuleFile,
    pub(super) check_at: Option<Span>,
    pub(super) eject_at: Option<Span>,
    pub(super) slow_start_at: Option<Span>,
    pub(super) upstream_at: Option<Span>,
    pub(super) overload_at: Option<Span>,
    /// Whether hosts and paths could be read, so that they can be compared with other files'.
    pub(super) claims: bool,
}

/// Names that later parts of the file may refer to.
pub(super) struct Names {
    pub(super) pools: Vec<Text>,
    pub(super) labels: Vec<Text>,
}

/// The file with whatever of it could be read; problems go to `out`. `None` when it is not even a map.
pub(super) fn parse(source: &Arc<Source>, out: &mut Diagnostics) -> Option<Parsed> {
    let root = yaml::parse(source, out)?;
    let mut reader = Reader { source, out };
    let r = &mut reader;
    let mut top = r.fields(&root, "a rule file")?;

    let service = match top.take("service") {
        Some(node) => r.name(node, "`service`"),
        None => {
            r.missing(root.span, "a rule file", "service");
            None
        }
    };
    let before = r.out.0.len();
    let hosts = top.take("hosts").map_or_else(Vec::new, |node| places::hosts(r, node));
    let paths = places::paths(r, top.take("paths"));
    if let Some(service) = &service {
        places::service_hosts(r, service, &hosts);
    }
    let claims = r.out.0.len() == before;
    let labels = top.take("labels").map_or_else(Vec::new, |node| labels::labels(r, node));
    let mut names = Names { pools: Vec::new(), labels: labels.iter().map(|label| label.name.value.clone()).collect() };
    let pools = top.take("pools").map_or_else(Vec::new, |node| pools::pools(r, node, &mut names));
    let lanes = top.take("lanes").and_then(|node| labels::lanes(r, node));
    let locality = top.take("locality").map(|node| policies::locality(r, node));
    let propagate = top.take("propagate").map_or_else(Vec::new, |node| labels::propagate(r, node, &names));
    let trusted = top.take("trusted").map(|node| r.networks(node, "`trusted`"));
    let policies = policies::policies(r, &mut top, &names);
    let rules = top.take("rules").map_or_else(Vec::new, |node| rule::rules(r, node, &names));
    let fallback = top.take("else").and_then(|node| fallback(r, node));
    let eject = top.take("eject").map(|node| health::eject(r, node));
    let overload = top.take("overload").map(|node| overload::overload(r, node));
    let check = top.take("check").and_then(|node| check::check(r, node));
    let slow_start = top.take("slow_start").map(|node| health::slow_start(r, node)).unwrap_or_default();
    let upstream = top.take("upstream").map(|node| upstream::upstream(r, node));
    let tests = top.take("tests").map_or_else(Vec::new, |node| {
        let rules: Vec<Text> = rules.iter().map(|rule| Text::clone(&rule.name.value)).collect();
        cases::cases(r, node, &rules, &names)
    });
    let at = |key| top.key_span(key);
    let (check_at, eject_at, slow_start_at) = (at("check"), at("eject"), at("slow_start"));
    let upstream_at = at("upstream");
    let overload_at = at("overload");
    r.close(top);

    let file = RuleFile {
        source: Arc::clone(source),
        service: service.unwrap_or_else(|| Spanned::new("".into(), root.span)),
        hosts,
        paths,
        pools,
        lanes,
        locality,
        labels,
        propagate,
        trusted,
        rules,
        fallback,
        policies,
        eject,
        overload,
        check,
        slow_start,
        upstream,
        tests,
    };
    Some(Parsed { file, check_at, eject_at, slow_start_at, overload_at, upstream_at, claims })
}

/// `else: any` or `else: 503`.
pub(super) fn fallback(r: &mut Reader<'_>, node: &Node) -> Option<Spanned<Else>> {
    if node.text() == Some("any") {
        return Some(Spanned::new(Else::Any, node.span));
    }
    let status = node.text().and_then(|text| text.parse().ok()).filter(|status| (400..=599).contains(status));
    match status {
        Some(status) => Some(Spanned::new(Else::Status(status), node.span)),
        None => r.malformed(node, "`any` or a status from 400 to 599"),
    }
}

/// A reference to a pool of the file.
pub(super) fn pool(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Spanned<Text>> {
    let name = r.spanned(node, "a pool's name")?;
    if names.pools.contains(&name.value) {
        return Some(name);
    }
    let mut problem = r.error("E012", node.span, format!("no pool is named `{}`", name.value));
    match nearest(&name.value, names.pools.iter().map(|pool| &**pool)) {
        Some(near) => problem = problem.label(format!("did you mean `{near}`?")),
        None if names.pools.is_empty() => problem = problem.label("this file has no `pools`"),
        None => problem = problem.help(format!("the pools are: {}", names.pools.join(", "))),
    }
    r.push(problem);
    None
}

/// A list of pools in order of preference, or one.
pub(super) fn pool_list(r: &mut Reader<'_>, node: &Node, names: &Names) -> Vec<Spanned<Text>> {
    let mut found: Vec<Spanned<Text>> = Vec::new();
    for item in r.items(node, "`to`") {
        let Some(name) = pool(r, item, names) else { continue };
        if let Some(first) = found.iter().find(|other| other.value == name.value) {
            let problem = r.error("E006", item.span, format!("the pool `{}` stands here twice", name.value));
            let problem = problem.related(r.source, first.span, "first written");
            r.push(problem);
        }
        found.push(name);
    }
    found
}
