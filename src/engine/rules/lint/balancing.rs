//! Lints on balancing and locality: keys that requests lack, and settings without effect.

use super::prove::Want;
use super::settle::may_lack;
use super::shape::used;
use super::witness::EXISTS;
use super::{Certainty, Findings, reach};
use crate::engine::diagnostic::{Diagnostics, Source};
use crate::engine::expr::{self, Written, ast::Field};
use crate::engine::label::Text;
use crate::engine::policy::Balance;
use crate::engine::rules::ruleset::{Action, LabelSource, Rule, RuleFile, TestCase};

/// A rule whose requests are hashed by a field that a request may lack.
struct Hashed<'f> {
    rule: &'f Rule,
    field: Field,
}

/// Each rule with each of its keys, once.
fn hashed(file: &RuleFile) -> Vec<Hashed<'_>> {
    let mut all: Vec<Hashed<'_>> = Vec::new();
    for rule in &file.rules {
        let pools: Vec<&str> = match &rule.action {
            Action::To(pools) => pools.iter().map(|pool| &*pool.value).collect(),
            Action::Split(split) => split.arms.iter().flat_map(|arm| &arm.to).map(|pool| &*pool.value).collect(),
            Action::Redirect { .. } | Action::Respond { .. } => continue,
        };
        let beside = rule.policies.balance.as_ref().or(file.policies.balance.as_ref());
        for pool in file.pools.iter().filter(|pool| pools.contains(&&*pool.name.value)) {
            let Some(Balance::Hash(key)) = pool.balance.as_ref().or(beside) else { continue };
            let source = Source::new("hash", &**key);
            let Some(field) = expr::parse_field(&Written::whole(&source), None, &mut Diagnostics::default()) else {
                continue;
            };
            let known = |other: &Hashed<'_>| other.rule.name.value == rule.name.value && other.field == field;
            if may_be_absent(file, &field) && !all.iter().any(known) {
                all.push(Hashed { rule, field });
            }
        }
    }
    all
}

/// Whether a request can be without it, whatever the rules say. A label with a fixed value is always there.
fn may_be_absent(file: &RuleFile, field: &Field) -> bool {
    let fixed = |source: &LabelSource| matches!(source, LabelSource::Fixed(_));
    match field {
        Field::RequestLabel(name) => {
            !file.labels.iter().any(|label| label.name.value == *name && label.sources.iter().any(fixed))
        }
        field => may_lack(field),
    }
}

/// Whether the rule's condition keeps out every request with the field (`true`), or without it.
fn excluded(found: &mut Findings<'_>, rule: &Rule, field: &Field, present: bool) -> bool {
    let when = rule.when.as_ref().map(|when| Want::Expr(when, true, &rule.salt));
    found.prover.never(when.into_iter().chain([Want::Test(field, &EXISTS, present)]).collect())
}

pub(super) fn key_that_is_missing(found: &mut Findings<'_>) {
    let file = found.file;
    let mut told: Vec<Field> = Vec::new();
    for Hashed { rule, field } in hashed(file) {
        let name = &rule.name.value;
        if excluded(found, rule, &field, true) {
            let message = format!("`{name}` hashes by `{field}`, which none of its requests has");
            found
                .report(rule.name.span, message, "without the key its pools are balanced as `least`")
                .certainty(Certainty::Proven);
        } else if !told.contains(&field)
            && !file.tests.is_empty()
            && file.tests.iter().all(|case| carries(file, case, &field) == Some(false))
        {
            let message = format!("`{name}` hashes by `{field}`, which no request of the tests has");
            found.report(rule.name.span, message, "a request without it is balanced as `least`");
            told.push(field);
        }
    }
}

pub(super) fn key_that_may_be_missing(found: &mut Findings<'_>) {
    for Hashed { rule, field } in hashed(found.file) {
        if excluded(found, rule, &field, true) || excluded(found, rule, &field, false) {
            continue;
        }
        let message = format!("requests without `{field}` are balanced as `least` under `{}`", rule.name.value);
        let ask = reach::request_for(found, rule, Want::Test(&field, &EXISTS, false));
        let certainty = if ask.is_some() { Certainty::Proven } else { Certainty::Suspected };
        found
            .report(rule.name.span, message, "only those that have it keep to one instance")
            .certainty(certainty)
            .ask(ask);
    }
}

/// Whether a case's request has a field; `None`: it cannot be said from the file.
fn carries(file: &RuleFile, case: &TestCase, field: &Field) -> Option<bool> {
    let named = |pair: &str, name: &str| pair.trim().split_once('=').map_or(pair.trim(), |(key, _)| key) == name;
    match field {
        Field::Header(name) => Some(case.headers.iter().any(|(header, _)| header == name)),
        Field::Cookie(name) => {
            let mut cookies = case.headers.iter().filter(|(header, _)| *header == http::header::COOKIE);
            Some(
                cookies.any(|(_, value)| {
                    String::from_utf8_lossy(value.as_bytes()).split(';').any(|pair| named(pair, name))
                }),
            )
        }
        // An escaped name may be any name.
        Field::Query(_) if case.target.contains('%') => None,
        Field::Query(name) => {
            let query = case.target.split_once('?').map_or("", |(_, query)| query);
            Some(query.split('&').any(|pair| named(pair, name)))
        }
        Field::RequestLabel(name) => {
            let label = file.labels.iter().find(|label| label.name.value == *name)?;
            let one = |source: &LabelSource| match source {
                LabelSource::Field(field) => carries(file, case, field),
                LabelSource::Fixed(_) => Some(true),
            };
            let all: Vec<Option<bool>> = label.sources.iter().map(one).collect();
            if all.contains(&Some(true)) { Some(true) } else { all.iter().all(Option::is_some).then_some(false) }
        }
        field => (!may_lack(field)).then_some(true),
    }
}

pub(super) fn slow_start_of_one(found: &mut Findings<'_>) {
    let file = found.file;
    if !file.slow_start.is_on() || found.instances().is_empty() {
        return;
    }
    let used: Vec<usize> =
        (0..file.pools.len()).filter(|at| used(file).any(|name| *name == *file.pools[*at].name.value)).collect();
    if used.iter().all(|at| found.members(*at).len() < 2) {
        let message = "`slow_start` has no effect: no pool has two instances";
        found
            .report(found.key("slow_start"), message, "who is alone gets every request at once")
            .certainty(Certainty::Proven);
    }
}

/// `prefer` may not be empty (E006), so what is left is a label that nobody has.
pub(super) fn locality_without_levels(found: &mut Findings<'_>) {
    let file = found.file;
    let Some(locality) = file.locality.as_ref().filter(|_| !found.instances().is_empty()) else { return };
    let lacked = |label: &&Text| found.instances().iter().all(|instance| instance.labels.value(label).is_none());
    if let Some(widest) = locality.prefer.first().filter(lacked) {
        let message = format!("no instance of `{}` has `{widest}`, by which `locality` prefers", file.service.value);
        let effect = "`spill`, `failback` and `min_local` have no effect: everybody is equally near";
        found.report(found.key("locality"), message, effect).certainty(Certainty::Proven);
    }
}
