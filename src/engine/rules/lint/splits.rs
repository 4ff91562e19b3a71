//! Lints on splits: what the shares say, and what a change of them moves.

use super::{Certainty, Findings};
use crate::engine::policy::{Min, WHOLE};
use crate::engine::rules::ruleset::{Action, Rule, RuleFile, Split};

fn split_of(rule: &Rule) -> Option<&Split> {
    match &rule.action {
        Action::Split(split) => Some(split),
        _ => None,
    }
}

pub(super) fn almost_percents(found: &mut Findings<'_>) {
    for rule in &found.file.rules {
        let Some(split) = split_of(rule).filter(|split| !split.percents && split.arms.len() > 1) else { continue };
        let sum: u64 = split.arms.iter().map(|arm| arm.weight).sum();
        let largest = split.arms.iter().map(|arm| arm.weight).max().unwrap_or(0);
        if (80..=120).contains(&sum) && sum != 100 && largest >= 50 {
            let message = format!("the weights of `{}` sum to {sum}: were percents meant?", rule.name.value);
            found.report(rule.name.span, message, "with `%` the sum is checked");
        }
    }
}

pub(super) fn growing_last(found: &mut Findings<'_>) {
    for rule in &found.file.rules {
        let Some(split) = split_of(rule).filter(|split| !split.key.is_empty()) else { continue };
        let total: u64 = split.arms.iter().map(|arm| arm.weight).sum();
        let Some((first, rest)) = split.arms.split_first() else { continue };
        if first.weight < total && rest.iter().all(|arm| arm.weight < first.weight) {
            let name = &first.to[0].value;
            let message = format!("the largest arm of `{}`, `{name}`, stands first", rule.name.value);
            found.report(
                first.span,
                message,
                "write the growing arm first: who has it keeps it whatever the others do",
            );
        }
    }
}

pub(super) fn finer_than_pool(found: &mut Findings<'_>) {
    let file = found.file;
    for (at, pool) in file.pools.iter().enumerate() {
        let size = found.members(at).len() as u64;
        let min = match pool.min {
            Min::Share(ppm) => Some(("min", ppm)),
            Min::Count(_) => None,
        };
        for (key, ppm) in min.into_iter().chain(pool.max_ejection_percent.map(|ppm| ("max_ejection_percent", ppm))) {
            if size == 0 || ppm == 0 || size * u64::from(ppm) >= u64::from(WHOLE) {
                continue;
            }
            let message = format!("`{key}` of `{}` is less than one of its {size} instances", pool.name.value);
            let least = u64::from(WHOLE).div_ceil(size);
            let label = format!("one instance is {}", percent(least));
            found.report(pool.name.span, message, label).certainty(Certainty::Proven);
        }
    }
}

/// The file of the rules before: by name, or the only one of the service.
fn before<'f>(found: &Findings<'f>) -> Option<&'f RuleFile> {
    let previous = found.previous?;
    let file = found.file;
    let base = |name: &str| name.rsplit('/').next().map(str::to_owned);
    let same = |other: &&RuleFile| other.service.value == file.service.value;
    let mut all = previous.files.iter().map(|other| &**other).filter(same);
    let named = previous
        .files
        .iter()
        .map(|other| &**other)
        .filter(same)
        .find(|other| base(&other.source.name) == base(&file.source.name));
    named.or_else(|| all.next().filter(|_| all.next().is_none()))
}

pub(super) fn not_monotone(found: &mut Findings<'_>) {
    let Some(previous) = before(found) else { return };
    for rule in &found.file.rules {
        let Some(now) = split_of(rule).filter(|split| !split.key.is_empty()) else { continue };
        let then = previous.rules.iter().find(|other| other.name.value == rule.name.value).and_then(split_of);
        let Some(then) = then.filter(|then| draws_alike(then, now)) else { continue };
        let (moved, needed) = moves(then, now);
        if moved > needed {
            let message = format!(
                "this change of `{}` moves {} of the keys where {} would do",
                rule.name.value,
                percent(moved),
                percent(needed)
            );
            found
                .report(rule.name.span, message, "keep the arms in their order, the growing one first")
                .certainty(Certainty::Proven);
        }
    }
}

pub(super) fn reshuffled(found: &mut Findings<'_>) {
    let Some(previous) = before(found) else { return };
    let file = found.file;
    for rule in &file.rules {
        let Some(now) = split_of(rule).filter(|split| !split.key.is_empty()) else { continue };
        let named = previous.rules.iter().find(|other| other.name.value == rule.name.value);
        let (message, label) = match named {
            Some(other) => {
                let Some(then) = split_of(other) else { continue };
                let keys = |split: &Split| split.key.iter().map(|key| key.value.clone()).collect::<Vec<_>>();
                if then.salt != now.salt {
                    (format!("the salt of `{}` changed: every user is drawn anew", rule.name.value), "keep the salt")
                } else if keys(then) != keys(now) {
                    (format!("the key of `{}` changed: users are drawn anew", rule.name.value), "keep the key")
                } else {
                    continue;
                }
            }
            None => {
                let gone = |other: &&Rule| !file.rules.iter().any(|rule| rule.name.value == other.name.value);
                let alike = |other: &&Rule| {
                    split_of(other).is_some_and(|then| names(then) == names(now) && then.salt != now.salt)
                };
                let Some(other) = previous.rules.iter().filter(gone).find(alike) else { continue };
                let message = format!(
                    "`{}` was named `{}`: another salt, so every user is drawn anew",
                    rule.name.value, other.name.value
                );
                (message, "keep the old name as `salt`")
            }
        };
        found.report(rule.name.span, message, label).certainty(Certainty::Proven);
    }
}

pub(super) fn epoch_raised(found: &mut Findings<'_>) {
    let Some(previous) = before(found) else { return };
    for rule in &found.file.rules {
        let Some(now) = split_of(rule) else { continue };
        let then = previous.rules.iter().find(|other| other.name.value == rule.name.value).and_then(split_of);
        if let Some(then) = then.filter(|then| then.epoch != now.epoch) {
            let message = format!("the epoch of `{}` went from {} to {}", rule.name.value, then.epoch, now.epoch);
            found.report(rule.name.span, message, "every user is drawn anew").certainty(Certainty::Proven);
        }
    }
}

fn draws_alike(a: &Split, b: &Split) -> bool {
    a.salt == b.salt && a.epoch == b.epoch && a.key.iter().map(|k| &k.value).eq(b.key.iter().map(|k| &k.value))
}

/// The arms' names in the order of the alphabet.
fn names(split: &Split) -> Vec<String> {
    let mut names: Vec<String> = split.arms.iter().map(name).collect();
    names.sort();
    names
}

fn name(arm: &crate::engine::rules::ruleset::Arm) -> String {
    arm.to.iter().map(|pool| &*pool.value).collect::<Vec<_>>().join(",")
}

/// Parts per million of the keys that change arms, and the least that the new shares need.
fn moves(then: &Split, now: &Split) -> (u64, u64) {
    let bounds = |split: &Split| -> Vec<(String, u128, u128)> {
        let total: u128 = split.arms.iter().map(|arm| u128::from(arm.weight)).sum();
        let mut upto = 0_u128;
        let mut found = Vec::new();
        for arm in &split.arms {
            let from = upto;
            upto += u128::from(arm.weight);
            // A common scale on which shares of both splits are whole enough to compare.
            let scaled = |at: u128| at * (u128::from(WHOLE) * 1_000_000) / total.max(1);
            found.push((name(arm), scaled(from), scaled(upto)));
        }
        found
    };
    let (old, new) = (bounds(then), bounds(now));
    let (mut stay, mut most) = (0_u128, 0_u128);
    for (name, from, upto) in &old {
        for (other, start, end) in &new {
            if name == other {
                stay += upto.min(end).saturating_sub(*from.max(start));
                most += (upto - from).min(end - start);
            }
        }
    }
    let whole = u128::from(WHOLE) * 1_000_000;
    let ppm = |part: u128| ((whole - part.min(whole)) / 1_000_000) as u64;
    (ppm(stay), ppm(most))
}

fn percent(ppm: u64) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
