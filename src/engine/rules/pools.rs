//! `pools`: named subsets, in their three written forms.

use super::file::Names;
use super::policies;
use super::read::Reader;
use super::ruleset::PoolSpec;
use crate::engine::diagnostic::{Span, Spanned};
use crate::engine::expr::ast::{Builtin, Expr, ExprKind, Field, Op, Operand, Test};
use crate::engine::expr::{self, Kind, Written};
use crate::engine::label::Text;
use crate::engine::policy::{Min, Panic};
use crate::engine::units;
use crate::engine::yaml::{Node, Value};

/// All pools in written order; their names go to `names` first, so that a broken selector breaks no reference.
pub(super) fn pools(r: &mut Reader<'_>, node: &Node, names: &mut Names) -> Vec<PoolSpec> {
    let pairs = r.pairs(node, "`pools`");
    names.pools = pairs.iter().map(|(name, ..)| (*name).into()).collect();
    let mut found = Vec::new();
    for (text, key, value) in pairs {
        let name = Spanned::new(Text::from(text), key.span);
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) && text.len() <= 64;
        if !plain || text == "any" {
            let message = format!("`{text}` cannot be the name of a pool");
            let label = if text == "any" {
                "`any` stands for every routable instance"
            } else {
                "letters, digits, `_`, `.` and `-`, at most 64"
            };
            let problem = r.error("E008", key.span, message).label(label);
            r.push(problem);
        }
        found.extend(pool(r, name, value, names));
    }
    found
}

fn pool(r: &mut Reader<'_>, name: Spanned<Text>, node: &Node, names: &Names) -> Option<PoolSpec> {
    match &node.value {
        Value::Map(pairs) if pairs.iter().any(|(key, _)| key.text() == Some("select")) => long(r, name, node, names),
        Value::Map(_) => Some(PoolSpec { from_map: true, ..bare(name, equalities(r, node, names)?) }),
        _ => Some(bare(name, selector(r, node, names)?)),
    }
}

fn bare(name: Spanned<Text>, select: Expr) -> PoolSpec {
    PoolSpec {
        name,
        select,
        min: Min::default(),
        accept: (true, true),
        panic: None,
        balance: None,
        max_ejection_percent: None,
        min_routable: None,
        from_map: false,
    }
}

/// `{select, min, accept, panic, balance, max_ejection_percent, min_routable}`.
fn long(r: &mut Reader<'_>, name: Spanned<Text>, node: &Node, names: &Names) -> Option<PoolSpec> {
    let mut fields = r.fields(node, "a pool")?;
    let select = match fields.take("select") {
        Some(node) if node.map().is_some() => equalities(r, node, names),
        Some(node) => selector(r, node, names),
        None => None,
    };
    let min = fields.take("min").and_then(|node| min(r, node));
    let accept = fields.take("accept").and_then(|node| accept(r, node));
    let panic = fields.take("panic").and_then(|node| r.word(node, &[("any", Panic::Any), ("fail", Panic::Fail)]));
    let balance = fields.take("balance").and_then(|node| policies::balance(r, node, names));
    let max_ejection_percent = fields.take("max_ejection_percent").and_then(|node| r.share(node));
    let min_routable = fields.take("min_routable").and_then(|node| r.integer(node, 0..=1_000_000));
    r.close(fields);
    let plain = bare(name, select?);
    Some(PoolSpec {
        min: min.unwrap_or_default(),
        accept: accept.unwrap_or((true, true)),
        panic,
        balance,
        max_ejection_percent,
        min_routable,
        ..plain
    })
}

fn selector(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Expr> {
    r.text(node, "a selector")?;
    let written = Written::scalar(node, r.source)?;
    expr::parse_instance(&written, Some(&names.labels), r.out)
}

/// `{version: 1.3, env: [prod, pre]}`: each key equal to its value, or to one of its values.
fn equalities(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Expr> {
    let mut terms = Vec::new();
    for (label, key, value) in r.pairs(node, "a selector") {
        let field = match Builtin::ALL.into_iter().find(|builtin| builtin.word() == label) {
            Some(builtin) => Field::Builtin(builtin),
            None => Field::Label(label.into()),
        };
        let Some((op, shown)) = equality(r, &field, value, names) else { continue };
        let text = format!("{field} {shown}").into();
        let kind = ExprKind::Test(Test { field, op, negated: false });
        terms.push(Expr { kind, span: key.span.to(value.span), text });
    }
    if node.map().is_some_and(<[_]>::is_empty) {
        let problem = r.error("E006", node.span, "an empty map selects nobody in particular");
        r.push(problem.label("every instance is `id exists`"));
    }
    if terms.len() <= 1 {
        return terms.pop();
    }
    let text = terms.iter().map(|term| &*term.text).collect::<Vec<_>>().join(" and ").into();
    Some(Expr { kind: ExprKind::And(terms), span: node.span, text })
}

fn equality(r: &mut Reader<'_>, field: &Field, value: &Node, names: &Names) -> Option<(Op, String)> {
    if let Some(items) = value.list() {
        if field.kind() == Kind::List {
            let problem = r.error("E022", value.span, format!("`{field}` is a list; one value may be asked for here"));
            r.push(problem.label("write an expression with `contains`"));
            return None;
        }
        let mut texts: Vec<Text> = Vec::new();
        for item in items {
            texts.push(r.text(item, "a value")?.into());
        }
        if texts.is_empty() {
            return r.malformed(value, "a value or a list of values, not an empty list");
        }
        let shown = texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        return Some((Op::In(texts.into()), format!("in [{shown}]")));
    }
    let text = r.text(value, "a value")?;
    if let (Some(name), Value::Scalar { plain: true, .. }) = (text.strip_prefix("label."), &value.value) {
        if !names.labels.iter().any(|label| &**label == name) {
            let problem = r.error("E019", value.span, format!("no request label is named `{name}`"));
            r.push(problem.label("declare it under `labels`; the text itself needs quotes"));
            return None;
        }
        return Some((Op::Equal(Operand::RequestLabel(name.into())), format!("== {text}")));
    }
    match field.kind() {
        Kind::List => Some((Op::Contains(text.into()), format!("contains {text:?}"))),
        _ => Some((Op::Equal(Operand::Text(text.into())), format!("== {text:?}"))),
    }
}

fn min(r: &mut Reader<'_>, node: &Node) -> Option<Min> {
    match node.text() {
        Some(text) if text.ends_with('%') => r.share(node).map(Min::Share),
        Some(text) if units::decimal(text, 0).is_some() => r.integer(node, 0..=1_000_000).map(Min::Count),
        _ => r.malformed(node, "a number of instances, or a share such as `30%`"),
    }
}

/// (passing, warning); critical is never accepted.
fn accept(r: &mut Reader<'_>, node: &Node) -> Option<(bool, bool)> {
    let mut accepted = (false, false);
    let mut sound = true;
    for item in r.items(node, "`accept`") {
        match r.word(item, &[("passing", true), ("warning", false)]) {
            Some(true) => accepted.0 = true,
            Some(false) => accepted.1 = true,
            None => sound = false,
        }
    }
    (sound && accepted != (false, false)).then_some(accepted)
}

/// Whether a pool's map of equalities asks for labels that are settings of the long form.
pub(super) fn settings_as_labels(pool: &PoolSpec) -> Vec<(Span, String)> {
    const SETTINGS: [&str; 6] = ["min", "accept", "panic", "balance", "max_ejection_percent", "min_routable"];
    let mut found = Vec::new();
    if pool.from_map {
        pool.select.tests(&mut |term, test| {
            if let Field::Label(label) = &test.field
                && SETTINGS.contains(&&**label)
            {
                found.push((term.span, label.to_string()));
            }
        });
    }
    found
}
