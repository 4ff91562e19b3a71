//! `split`: weighted arms, in their two written forms.

use super::file::{Names, pool, pool_list};
use super::read::Reader;
use super::ruleset::Arm;
use crate::engine::diagnostic::Span;
use crate::engine::policy::WHOLE;
use crate::engine::units;
use crate::engine::yaml::{Node, Value};

/// The largest integer weight of an arm.
const MAX_WEIGHT: u32 = 1_000_000_000;

/// The arms of a split as written.
pub(super) struct Arms {
    pub(super) arms: Vec<Arm>,
    pub(super) percents: bool,
    pub(super) from_map: bool,
}

/// `{gray: 5%, stable: 95%}` or `[{to: [gray], share: 5%}, …]`.
pub(super) fn arms(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Arms> {
    let from_map = node.map().is_some();
    let mut arms = Vec::new();
    let mut whole = true;
    let written = if from_map { from_pairs(r, node, names) } else { from_list(r, node, names) };
    for (to, share) in written {
        match share.and_then(|node| Some((node, weight(r, node)?))) {
            Some((node, (weight, percent))) if !to.is_empty() => {
                arms.push((Arm { to, weight, span: node.span }, percent))
            }
            _ => whole = false,
        }
    }
    let empty = matches!(&node.value, Value::Map(pairs) if pairs.is_empty());
    if empty {
        return r.malformed(node, "at least one arm");
    }
    if !whole || arms.is_empty() {
        return None;
    }
    let percents = arms[0].1;
    if let Some((odd, _)) = arms.iter().find(|(_, percent)| *percent != percents) {
        let problem = r.error("E014", odd.span, "percents and whole numbers cannot be mixed in one split");
        let label = if percents { "the arms before are percents" } else { "the arms before are whole numbers" };
        let problem = problem.label(label);
        r.push(problem);
        return None;
    }
    let arms: Vec<Arm> = arms.into_iter().map(|(arm, _)| arm).collect();
    sum(r, &arms, percents, node.span).then_some(Arms { arms, percents, from_map })
}

type Written<'n> = Vec<(Vec<crate::engine::diagnostic::Spanned<crate::engine::label::Text>>, Option<&'n Node>)>;

fn from_pairs<'n>(r: &mut Reader<'_>, node: &'n Node, names: &Names) -> Written<'n> {
    let pairs = r.pairs(node, "`split`");
    pairs.into_iter().map(|(_, key, share)| (pool(r, key, names).into_iter().collect(), Some(share))).collect()
}

fn from_list<'n>(r: &mut Reader<'_>, node: &'n Node, names: &Names) -> Written<'n> {
    if node.list().is_none() {
        r.push(r.error("E002", node.span, format!("`split` must be a map or a list, not {}", node.kind())));
        return vec![(Vec::new(), None)];
    }
    let mut found = Vec::new();
    for item in r.items(node, "`split`") {
        let Some(mut fields) = r.fields(item, "an arm of a split") else {
            found.push((Vec::new(), None));
            continue;
        };
        let to = match fields.take("to") {
            Some(node) => pool_list(r, node, names),
            None => {
                r.missing(item.span, "an arm of a split", "to");
                Vec::new()
            }
        };
        let share = fields.take("share");
        if share.is_none() {
            r.missing(item.span, "an arm of a split", "share");
        }
        r.close(fields);
        found.push((to, share));
    }
    found
}

/// The weight, and whether it is a percentage.
fn weight(r: &mut Reader<'_>, node: &Node) -> Option<(u64, bool)> {
    match node.text() {
        Some(text) if text.ends_with('%') => r.share(node).map(|ppm| (u64::from(ppm), true)),
        Some(text) if units::decimal(text, 0).is_some() => {
            r.integer(node, 0..=MAX_WEIGHT).map(|weight| (u64::from(weight), false))
        }
        _ => r.malformed(node, "a percentage such as `5%`, or a whole number"),
    }
}

fn sum(r: &mut Reader<'_>, arms: &[Arm], percents: bool, span: Span) -> bool {
    let sum: u64 = arms.iter().map(|arm| arm.weight).sum();
    let message = if percents && sum != u64::from(WHOLE) {
        format!("the shares of this split sum to {}%, not 100%", percent(sum))
    } else if sum == 0 {
        "every share of this split is 0".to_owned()
    } else {
        return true;
    };
    let problem = r.error("E013", span, message);
    r.push(problem);
    false
}

/// Parts per million as a percentage, without trailing zeros.
fn percent(ppm: u64) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
