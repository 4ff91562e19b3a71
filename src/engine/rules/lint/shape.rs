//! Lints that need nothing but the rules.

use super::prove::Want;
use super::witness::METHOD;
use super::{Certainty, Findings};
use crate::engine::expr::ast::{Expr, Field, Op, Operand};
use crate::engine::rules::pools::settings_as_labels;
use crate::engine::rules::ruleset::{Action, RuleFile};

pub(super) fn untrusted(found: &mut Findings<'_>) {
    let file = found.file;
    let Some(label) = file.labels.first() else { return };
    let name = &label.name.value;
    let everywhere = |networks: &Vec<ipnet::IpNet>| networks.iter().find(|network| network.prefix_len() == 0).copied();
    match file.trusted.as_ref().map(everywhere) {
        None => {
            let message = format!("anybody may set the request label `{name}`");
            found.report(label.name.span, message, "add `trusted` with the networks that may send control headers");
        }
        Some(Some(network)) => {
            let message = format!("`trusted` holds {network}: anybody may set the request label `{name}`");
            found.report(found.key("trusted"), message, "name the networks that may send control headers");
        }
        Some(None) => {}
    }
}

pub(super) fn keyless(found: &mut Findings<'_>) {
    for rule in &found.file.rules {
        if let Action::Split(split) = &rule.action
            && split.key.is_empty()
            && split.arms.iter().filter(|arm| arm.weight > 0).count() > 1
        {
            let message = format!("the split of `{}` has no `key`", rule.name.value);
            found.report(rule.name.span, message, "the same user gets a different version from request to request");
        }
    }
}

pub(super) fn map_of_arms(found: &mut Findings<'_>) {
    for rule in &found.file.rules {
        if let Action::Split(split) = &rule.action
            && split.from_map
            && split.arms.len() >= 3
        {
            let message = format!("the split of `{}` is a map of {} arms", rule.name.value, split.arms.len());
            found.report(rule.name.span, message, "order is stickiness and formatters sort maps: write a list");
        }
    }
}

pub(super) fn unused_pool(found: &mut Findings<'_>) {
    let file = found.file;
    for pool in &file.pools {
        let name = &pool.name.value;
        if !used(file).any(|other| other == &**name) {
            found
                .report(pool.name.span, format!("no rule uses the pool `{name}`"), "nobody is sent here")
                .certainty(Certainty::Proven);
        }
    }
}

pub(super) fn used(file: &RuleFile) -> impl Iterator<Item = &str> {
    let routed = file.rules.iter().flat_map(|rule| match &rule.action {
        Action::To(pools) => pools.iter().collect::<Vec<_>>(),
        Action::Split(split) => split.arms.iter().flat_map(|arm| &arm.to).collect(),
        Action::Redirect { .. } | Action::Respond { .. } => Vec::new(),
    });
    let policies = file.rules.iter().map(|rule| &rule.policies).chain([&file.policies]);
    let mirrored = policies.filter_map(|policies| policies.message.mirror.as_ref()).map(|mirror| &mirror.to);
    routed.chain(mirrored).map(|pool| &*pool.value)
}

pub(super) fn finer_first(found: &mut Findings<'_>) {
    /// Widest first, as clouds and catalogs name them.
    const WIDTH: [&[&str]; 4] =
        [&["region"], &["dc", "datacenter"], &["zone", "az", "availability_zone"], &["rack", "host", "node"]];
    let Some(locality) = &found.file.locality else { return };
    let width = |label: &str| WIDTH.iter().position(|names| names.contains(&label));
    let known: Vec<(usize, &str)> =
        locality.prefer.iter().filter_map(|label| Some((width(label)?, &**label))).collect();
    if let Some(pair) = known.windows(2).find(|pair| pair[0].0 > pair[1].0) {
        let message = format!("`{}` stands before the wider `{}` in `prefer`", pair[0].1, pair[1].1);
        found.report(found.key("locality"), message, "`prefer` is written widest first");
    }
}

pub(super) fn setting_as_label(found: &mut Findings<'_>) {
    for pool in &found.file.pools {
        for (span, label) in settings_as_labels(pool) {
            let message = format!("`{label}` is read as a label of the instances here");
            found.report(span, message, "a pool's settings stand beside `select`");
        }
    }
}

pub(super) fn never(found: &mut Findings<'_>) {
    let conditions: Vec<&Expr> = found.file.rules.iter().filter_map(|rule| rule.when.as_ref()).collect();
    for condition in conditions {
        condition.tests(&mut |term, test| {
            for text in literals(&test.op) {
                let label = match &test.field {
                    Field::Host if text.bytes().any(|b| b.is_ascii_uppercase()) => "a host is lower case here",
                    Field::Host if text.contains(':') && !text.starts_with('[') => "a host has no port here",
                    Field::Scheme if !matches!(text, "http" | "https") => "a scheme is `http` or `https`",
                    Field::Method if text.bytes().all(|b| b.is_ascii_lowercase()) => "methods are upper case",
                    Field::Path if text.contains('?') => "a path has no query here; use `query.NAME`",
                    Field::Path if !text.starts_with('/') && !matches!(test.op, Op::Ends(_) | Op::Contains(_)) => {
                        "a path begins with `/`"
                    }
                    _ => continue,
                };
                found.report(term.span, format!("`{}` is never met by `{text}`", test.field), label);
            }
        });
    }
}

fn literals(op: &Op) -> Vec<&str> {
    match op {
        Op::Equal(Operand::Text(text)) | Op::Starts(text) | Op::Ends(text) | Op::Contains(text) => vec![text],
        Op::In(texts) => texts.iter().map(|text| &**text).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn retries_that_never_happen(found: &mut Findings<'_>) {
    let file = found.file;
    let idempotent = Op::In(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"].map(Into::into).into());
    for rule in &file.rules {
        let (Some(retry), Some(when)) = (&rule.policies.retry, &rule.when) else { continue };
        let asks = retry.attempts > 1 && (retry.reset || retry.timeout || !retry.statuses.is_empty());
        let wants = vec![Want::Expr(when, true, &rule.salt), Want::Test(&METHOD, &idempotent, true)];
        if asks && found.prover.never(wants) {
            let message = format!("`{}` takes no idempotent method, and only those are sent twice", rule.name.value);
            found
                .report(rule.name.span, message, "of its `retry`, only `connect` ever happens")
                .certainty(Certainty::Proven);
        }
    }
}
