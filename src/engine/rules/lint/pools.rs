//! Lints on pools: whom they select, and whom not.

use std::collections::BTreeSet;

use super::prove::Want;
use super::{Certainty, Findings};
use crate::engine::diagnostic::{Span, Spanned, nearest};
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op, Operand, Test, Version};
use crate::engine::label::Text;
use crate::engine::rules::ruleset::{Action, Else, PoolSpec};

/// Keys that name an environment.
const ENVS: [&str; 4] = ["env", "environment", "stage", "tier"];
/// Keys that name a lane.
const LANES: [&str; 4] = ["lane", "feature", "branch", "swimlane"];
/// Catalog labels that metrics carry, and the distinct values of one service that they keep.
const METRIC_LABELS: [&str; 3] = ["version", "env", "region"];
/// The default of `metrics.label_values`.
const METRIC_VALUES: usize = 200;

/// Whether the first selects nobody whom the second does not.
fn inside(found: &mut Findings<'_>, a: &PoolSpec, b: &PoolSpec) -> bool {
    found.prover.never(vec![Want::Expr(&a.select, true, ""), Want::Expr(&b.select, false, "")])
}

pub(super) fn same_selection(found: &mut Findings<'_>) {
    let file = found.file;
    for (at, pool) in file.pools.iter().enumerate() {
        for first in &file.pools[..at] {
            let settings =
                |p: &PoolSpec| (p.min, p.accept, p.panic, p.balance.clone(), p.max_ejection_percent, p.min_routable);
            if settings(first) == settings(pool) && inside(found, pool, first) && inside(found, first, pool) {
                let message = format!("`{}` selects the same instances as `{}`", pool.name.value, first.name.value);
                found.report(pool.name.span, message, "one of them is enough").certainty(Certainty::Proven);
                break;
            }
        }
    }
}

pub(super) fn selects_nobody(found: &mut Findings<'_>) {
    let file = found.file;
    let Some(catalog) = found.catalog else { return };
    if !catalog.contains_key(&file.service.value) {
        if &*file.service.value == "*" {
            return;
        }
        let message = format!("the catalog has no service `{}`", file.service.value);
        let label = match nearest(&file.service.value, catalog.keys().map(|name| &**name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "its pools select nobody".to_owned(),
        };
        found.report(file.service.span, message, label).certainty(Certainty::Proven);
        return;
    }
    for (at, pool) in file.pools.iter().enumerate() {
        if found.instances().is_empty() || !found.members(at).is_empty() {
            continue;
        }
        let message = format!("`{}` selects none of the {} instances", pool.name.value, found.instances().len());
        let label = nearest_that_does(found, &pool.select);
        found.report(pool.select.span, message, label).certainty(Certainty::Proven);
    }
}

/// What to change so that somebody is selected.
fn nearest_that_does(found: &Findings<'_>, select: &Expr) -> String {
    let terms: Vec<&Expr> = match &select.kind {
        ExprKind::And(parts) => parts.iter().collect(),
        _ => vec![select],
    };
    for term in &terms {
        let ExprKind::Test(Test { field: Field::Label(key), op: Op::Equal(Operand::Text(text)), negated: false }) =
            &term.kind
        else {
            continue;
        };
        let values: BTreeSet<&str> = found.instances().iter().filter_map(|i| i.labels.value(key)).collect();
        if values.is_empty() {
            let keys: BTreeSet<&str> =
                found.instances().iter().flat_map(|i| i.labels.iter().map(|(key, _)| &**key)).collect();
            if let Some(near) = nearest(key, keys) {
                return format!("no instance has `{key}`; did you mean `{near}`?");
            }
            return format!("no instance has `{key}`");
        }
        if !values.contains(&**text) {
            return match nearest(text, closest_first(text, &values)) {
                Some(near) => format!("no `{key}` is `{text}`; did you mean `{near}`?"),
                None => format!("`{key}` is {}", values.into_iter().collect::<Vec<_>>().join(", ")),
            };
        }
    }
    for (left_out, term) in terms.iter().enumerate().filter(|_| terms.len() > 1) {
        let rest: Vec<Expr> =
            terms.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, term)| (*term).clone()).collect();
        let kind = if rest.len() == 1 { rest[0].kind.clone() } else { ExprKind::And(rest) };
        let count = found.selected(&Expr { kind, span: select.span, text: select.text.clone() }).len();
        if count > 0 {
            return format!("without `{}` it would be {count}", term.text);
        }
    }
    "nobody is sent here".to_owned()
}

/// Values in the order in which they are taken when several are spelled alike: the one just below `text` first, as
/// versions where they are such.
fn closest_first<'v>(text: &str, values: &BTreeSet<&'v str>) -> Vec<&'v str> {
    let order = |a: &str, b: &str| match (Version::parse(a), Version::parse(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.cmp(b),
    };
    let (mut below, mut above): (Vec<&str>, Vec<&str>) =
        values.iter().copied().partition(|value| order(value, text).is_lt());
    below.sort_by(|a, b| order(b, a));
    above.sort_by(|a, b| order(a, b));
    below.append(&mut above);
    below
}

pub(super) fn several_envs(found: &mut Findings<'_>) {
    let file = found.file;
    for (at, pool) in file.pools.iter().enumerate() {
        let members = found.members(at);
        for key in ENVS {
            let values: BTreeSet<&str> =
                members.iter().filter_map(|at| found.instances()[*at].labels.value(key)).collect();
            if values.len() > 1 && !mentions(&pool.select, key) {
                let list = values.into_iter().collect::<Vec<_>>().join(", ");
                let message = format!("`{}` holds instances of several environments: {list}", pool.name.value);
                found.report(pool.select.span, message, format!("add a term on `{key}`")).certainty(Certainty::Proven);
            }
        }
    }
}

fn mentions(select: &Expr, key: &str) -> bool {
    let mut found = false;
    select.fields(&mut |field| found |= matches!(field, Field::Label(label) if &**label == key));
    found
}

pub(super) fn arms_overlap(found: &mut Findings<'_>) {
    let file = found.file;
    for rule in &file.rules {
        let Action::Split(split) = &rule.action else { continue };
        for (at, arm) in split.arms.iter().enumerate() {
            for other in &split.arms[..at] {
                let (a, b) = (&other.to[0], &arm.to[0]);
                let (Some(x), Some(y)) = (index(found, a), index(found, b)) else { continue };
                if x == y {
                    continue;
                }
                let message = format!("the arms `{}` and `{}` of `{}` overlap", a.value, b.value, rule.name.value);
                let label = if found.catalog.is_some() {
                    let theirs = found.members(x);
                    let both: Vec<u32> =
                        found.members(y).into_iter().filter(|at| theirs.contains(at)).map(|at| at as u32).collect();
                    if both.is_empty() {
                        continue;
                    }
                    let ids = both
                        .iter()
                        .take(3)
                        .map(|at| &*found.instances()[*at as usize].id)
                        .collect::<Vec<_>>()
                        .join(", ");
                    format!("{} of both: {ids}", both.len())
                } else if inside(found, &file.pools[y], &file.pools[x]) {
                    format!("every instance of `{}` is in `{}`", b.value, a.value)
                } else if inside(found, &file.pools[x], &file.pools[y]) {
                    format!("every instance of `{}` is in `{}`", a.value, b.value)
                } else {
                    continue;
                };
                found.report(arm.to[0].span, message, label).certainty(Certainty::Proven);
            }
        }
    }
}

fn index(found: &Findings<'_>, name: &Spanned<Text>) -> Option<usize> {
    found.file.pools.iter().position(|pool| pool.name.value == name.value)
}

pub(super) fn unreached(found: &mut Findings<'_>) {
    let file = found.file;
    let any = file.rules.iter().map(|rule| &rule.fallback).chain([&file.fallback]);
    let any = any.flatten().any(|fallback| fallback.value == Else::Any);
    if any || file.pools.is_empty() || file.rules.is_empty() || found.instances().is_empty() {
        return;
    }
    let mut reached = BTreeSet::new();
    for (at, pool) in file.pools.iter().enumerate() {
        if super::shape::used(file).any(|name| name == &*pool.name.value) {
            reached.extend(found.members(at));
        }
    }
    let rest: Vec<&str> =
        (0..found.instances().len()).filter(|at| !reached.contains(at)).map(|at| &*found.instances()[at].id).collect();
    if !rest.is_empty() && !reached.is_empty() {
        let some = rest.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let message =
            format!("{} of {} instances are in no pool that a rule uses", rest.len(), found.instances().len());
        found.report(file.service.span, message, some).certainty(Certainty::Proven);
    }
}

pub(super) fn label_missing(found: &mut Findings<'_>) {
    let file = found.file;
    let mut read: Vec<(Text, Span)> = Vec::new();
    let mut asked: BTreeSet<Text> = BTreeSet::new();
    for pool in &file.pools {
        pool.select.tests(&mut |term, test| {
            let Field::Label(label) = &test.field else { return };
            if matches!(test.op, Op::Exists) {
                asked.insert(label.clone());
            } else if !test.negated && !read.iter().any(|(other, _)| other == label) {
                read.push((label.clone(), term.span));
            }
        });
    }
    for (label, span) in read.into_iter().filter(|(label, _)| !asked.contains(label)) {
        let all = found.instances();
        let lacking: Vec<&str> = all.iter().filter(|i| i.labels.value(&label).is_none()).map(|i| &*i.id).collect();
        let lane = file.lanes.as_ref().is_some_and(|lanes| lanes.label == label);
        if lane || lacking.is_empty() || lacking.len() == all.len() {
            continue;
        }
        let some = lacking.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let message = format!("{} of {} instances have no `{label}`", lacking.len(), all.len());
        found.report(span, message, format!("no test on it selects {some}")).certainty(Certainty::Proven);
    }
}

pub(super) fn any_across_envs(found: &mut Findings<'_>) {
    let file = found.file;
    let all = file.rules.iter().filter_map(|rule| rule.fallback.as_ref()).chain(&file.fallback);
    for fallback in all.filter(|fallback| fallback.value == Else::Any) {
        for key in ENVS {
            let values: BTreeSet<&str> = found.instances().iter().filter_map(|i| i.labels.value(key)).collect();
            let (message, certainty) = if values.len() > 1 {
                let list = values.into_iter().collect::<Vec<_>>().join(", ");
                (format!("`any` is of every environment: {list}"), Certainty::Proven)
            } else if found.catalog.is_none() && file.pools.iter().any(|pool| mentions(&pool.select, key)) {
                (format!("`any` does not ask for `{key}`, as the pools do"), Certainty::Suspected)
            } else {
                continue;
            };
            found.report(fallback.span, message, "name the pools that may stand in").certainty(certainty);
        }
    }
}

pub(super) fn failover_to_nowhere(found: &mut Findings<'_>) {
    let file = found.file;
    let lists = file.rules.iter().flat_map(|rule| match &rule.action {
        Action::To(pools) => vec![pools],
        Action::Split(split) => split.arms.iter().map(|arm| &arm.to).collect(),
        Action::Redirect { .. } | Action::Respond { .. } => Vec::new(),
    });
    let lists: Vec<&Vec<Spanned<Text>>> = lists.collect();
    for list in lists {
        for (at, name) in list.iter().enumerate().skip(1) {
            let Some(pool) = index(found, name).map(|at| &file.pools[at]) else { continue };
            for first in &list[..at] {
                let Some(before) = index(found, first).map(|at| &file.pools[at]) else { continue };
                let accepted = (before.accept.0 || !pool.accept.0) && (before.accept.1 || !pool.accept.1);
                if pool.name.value != before.name.value && accepted && inside(found, pool, before) {
                    let message = format!("`{}` cannot stand in for `{}`", name.value, first.value);
                    let label = "it is a part of it: when nobody there is routable, nobody here is";
                    found.report(name.span, message, label).certainty(Certainty::Proven);
                }
            }
        }
    }
}

pub(super) fn lanes_wanted(found: &mut Findings<'_>) {
    let file = found.file;
    if file.lanes.is_some() {
        return;
    }
    for key in LANES {
        let with = found.instances().iter().filter(|i| i.labels.value(key).is_some()).count();
        if with > 0 && with < found.instances().len() {
            let message =
                format!("{with} of {} instances have `{key}`, and there is no `lanes`", found.instances().len());
            let label = format!("they take everybody's traffic; isolate them with `lanes: {{label: {key}}}`");
            found.report(file.service.span, message, label);
        }
    }
}

pub(super) fn over_the_cap(found: &mut Findings<'_>) {
    for key in METRIC_LABELS {
        let values: BTreeSet<&str> = found.instances().iter().filter_map(|i| i.labels.value(key)).collect();
        if values.len() > METRIC_VALUES {
            let message = format!("`{key}` has {} values, and metrics keep {}", values.len(), METRIC_VALUES);
            found
                .report(found.file.service.span, message, "the others are counted as `other`")
                .certainty(Certainty::Proven);
        }
    }
}
