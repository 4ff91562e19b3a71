//! Lints on which requests a rule gets at all.

use super::prove::{Answer, Model, Want};
use super::witness::{self, Ask, Expect, Frame};
use super::{Certainty, Findings};
use crate::engine::rules::ruleset::{Action, Rule, RuleFile};

/// Rules of one file that are compared with each other.
const MOST_RULES: usize = 300;
/// Overlaps that are shown of one file.
const MOST_OVERLAPS: usize = 20;

/// The demand that a rule's condition holds, or not. A rule without one takes everything.
fn when(rule: &Rule, positive: bool) -> Option<Want<'_>> {
    rule.when.as_ref().map(|when| Want::Expr(when, positive, &rule.salt))
}

/// All requests of the file for which these hold.
fn among<'e>(frame: &'e Frame, more: impl IntoIterator<Item = Want<'e>>) -> Vec<Want<'e>> {
    more.into_iter().chain(frame.wants()).collect()
}

/// Why a rule is never reached.
enum Covered<'r> {
    By(&'r Rule),
    Together(Vec<&'r Rule>),
}

fn covered<'f>(found: &mut Findings<'f>, frame: &Frame, at: usize) -> Option<Covered<'f>> {
    let rules: &'f [Rule] = &found.file.rules;
    let rule = &rules[at];
    let mut relevant = Vec::new();
    for earlier in &rules[..at] {
        let Some(theirs) = when(earlier, true) else { return Some(Covered::By(earlier)) };
        let ours = || when(rule, true);
        if found.prover.never(among(frame, ours().into_iter().chain([theirs]))) {
            continue;
        }
        if found.prover.never(among(frame, ours().into_iter().chain(when(earlier, false)))) {
            return Some(Covered::By(earlier));
        }
        relevant.push(earlier);
    }
    let mut together = |rules: &[&Rule]| {
        let others = rules.iter().filter_map(|other| when(other, false));
        found.prover.never(among(frame, when(rule, true).into_iter().chain(others)))
    };
    if relevant.len() < 2 || !together(&relevant) {
        return None;
    }
    let mut at = 0;
    while at < relevant.len() {
        let one = relevant.remove(at);
        if !together(&relevant) {
            relevant.insert(at, one);
            at += 1;
        }
    }
    Some(Covered::Together(relevant))
}

/// A rule that one rule before it covers; with `together`, several.
fn unreachable(found: &mut Findings<'_>, several: bool) {
    let file = found.file;
    let frame = Frame::of(file);
    for (at, rule) in file.rules.iter().enumerate().take(MOST_RULES) {
        if rule.when.is_some() && found.prover.never(among(&frame, when(rule, true))) {
            continue;
        }
        let name = &rule.name.value;
        let label = match covered(found, &frame, at) {
            Some(Covered::By(earlier)) if !several => match earlier.when {
                None => format!("`{}` before it takes every request", earlier.name.value),
                Some(_) => format!("`{}` before it takes all of its requests", earlier.name.value),
            },
            Some(Covered::Together(earlier)) if several => {
                let names: Vec<String> = earlier.iter().map(|rule| format!("`{}`", rule.name.value)).collect();
                format!("{} before it take all of its requests", names.join(" and "))
            }
            _ => continue,
        };
        let model = found.prover.solve(among(&frame, when(rule, true)));
        let expect = Expect::NotRule { file: file.source.name.clone(), rule: name.clone() };
        let ask = asked(model, file, expect, false);
        found
            .report(rule.name.span, format!("the rule `{name}` is never reached"), label)
            .certainty(Certainty::Proven)
            .ask(ask);
    }
}

pub(super) fn unreachable_by_one(found: &mut Findings<'_>) {
    unreachable(found, false);
}

pub(super) fn unreachable_by_several(found: &mut Findings<'_>) {
    unreachable(found, true);
}

pub(super) fn contradiction(found: &mut Findings<'_>) {
    let file = found.file;
    let frame = Frame::of(file);
    for rule in &file.rules {
        let Some(condition) = &rule.when else { continue };
        if !found.prover.never(among(&frame, when(rule, true))) {
            continue;
        }
        let message = format!("no request can meet the condition of `{}`", rule.name.value);
        let alone = found.prover.never(vec![Want::Expr(condition, true, &rule.salt)]);
        let label = if alone { "it contradicts itself" } else { "it contradicts the `hosts` and `paths` of this file" };
        found.report(condition.span, message, label).certainty(Certainty::Proven);
    }
}

pub(super) fn overlap(found: &mut Findings<'_>) {
    let file = found.file;
    let frame = Frame::of(file);
    let mut shown = 0;
    for (at, later) in file.rules.iter().enumerate().take(MOST_RULES) {
        for first in &file.rules[..at] {
            if shown == MOST_OVERLAPS
                || first.when.is_none()
                || later.when.is_none()
                || alike(&first.action, &later.action)
            {
                continue;
            }
            let mut open = |a, b| {
                let wants = [when(first, a), when(later, b)];
                match found.prover.solve(among(&frame, wants.into_iter().flatten())) {
                    Answer::Model(model) => Some(model),
                    Answer::Never | Answer::Unknown => None,
                }
            };
            let (Some(both), Some(_), Some(_)) = (open(true, true), open(true, false), open(false, true)) else {
                continue;
            };
            shown += 1;
            let (first_name, name) = (&first.name.value, &later.name.value);
            let expect = Expect::Rule { file: file.source.name.clone(), rule: first_name.clone() };
            let ask = asked(Answer::Model(both), file, expect, true);
            let message = format!("`{first_name}` and `{name}` overlap and go elsewhere");
            found
                .report(later.name.span, message, format!("what meets both goes to `{first_name}`, which stands first"))
                .certainty(Certainty::Proven)
                .ask_or_drop(ask);
        }
    }
}

fn alike(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (Action::To(a), Action::To(b)) => a.iter().map(|pool| &pool.value).eq(b.iter().map(|pool| &pool.value)),
        _ => false,
    }
}

pub(super) fn no_catch_all(found: &mut Findings<'_>) {
    let file = found.file;
    if file.rules.is_empty() || file.fallback.is_some() || file.rules.iter().any(|rule| rule.when.is_none()) {
        return;
    }
    let frame = Frame::of(file);
    let none = file.rules.iter().filter_map(|rule| when(rule, false));
    let answer = found.prover.solve(among(&frame, none));
    let span = found.key("rules");
    let (message, label) =
        ("a request that no rule takes gets 404", "end with a rule without `when`, or say what is meant with `else`");
    match answer {
        Answer::Never => {}
        Answer::Unknown => {
            found.report(span, message, label);
        }
        Answer::Model(_) => {
            let ask = asked(answer, file, Expect::NoRule { file: file.source.name.clone() }, false);
            let certainty = if ask.is_some() { Certainty::Proven } else { Certainty::Suspected };
            found.report(span, message, label).certainty(certainty).ask(ask);
        }
    }
}

/// A request that this rule gets, with a demand of the lint's own.
pub(super) fn request_for<'e>(found: &mut Findings<'e>, rule: &'e Rule, more: Want<'_>) -> Option<Ask> {
    let file = found.file;
    let frame = Frame::of(file);
    let before = file.rules.iter().take_while(|other| other.name.value != rule.name.value);
    let others = before.filter_map(|other| when(other, false));
    let wants = when(rule, true).into_iter().chain(others).chain([more]);
    let answer = found.prover.solve(among(&frame, wants));
    let expect = Expect::Rule { file: file.source.name.clone(), rule: rule.name.value.clone() };
    asked(answer, file, expect, false)
}

fn asked(answer: Answer, file: &RuleFile, expect: Expect, needed: bool) -> Option<Ask> {
    let Answer::Model(model) = answer else { return None };
    let model: Model = model;
    Some(Ask { request: witness::request(&model, file)?, expect, needed })
}
