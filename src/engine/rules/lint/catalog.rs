//! Lints that compare selectors with what the catalog's instances say.

use super::Findings;
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op, Operand, Version};

pub(super) fn negated_on_missing(found: &mut Findings<'_>) {
    let instances = found.instances();
    for pool in &found.file.pools {
        for (term, label) in negated(&pool.select, false) {
            let lacking: Vec<&str> =
                instances.iter().filter(|i| i.labels.value(label).is_none()).map(|i| &*i.id).collect();
            if lacking.is_empty() {
                continue;
            }
            let message = format!(
                "`{}` is true for {} of {} instances that have no `{label}`",
                term.text,
                lacking.len(),
                instances.len()
            );
            let some = lacking.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            found.report(term.span, message, format!("{some}; add `{label} exists` if they are not meant"));
        }
    }
}

/// Tests on labels that decide under a negation, whichever way it is written.
fn negated(expr: &Expr, inside: bool) -> Vec<(&Expr, &str)> {
    match &expr.kind {
        ExprKind::Or(parts) | ExprKind::And(parts) => parts.iter().flat_map(|part| negated(part, inside)).collect(),
        ExprKind::Not(inner) => negated(inner, !inside),
        ExprKind::Test(test) => match &test.field {
            Field::Label(label) if test.negated != inside && !matches!(test.op, Op::Exists) => vec![(expr, &**label)],
            _ => Vec::new(),
        },
        ExprKind::Percent { .. } => Vec::new(),
    }
}

pub(super) fn version_as_text(found: &mut Findings<'_>) {
    let instances = found.instances();
    for pool in &found.file.pools {
        pool.select.tests(&mut |term, test| {
            let Field::Label(label) = &test.field else { return };
            let texts = match &test.op {
                Op::Equal(Operand::Text(text)) => std::slice::from_ref(text),
                Op::In(texts) => &**texts,
                _ => return,
            };
            for text in texts {
                let Some(version) = Version::parse(text) else { continue };
                let alike = instances.iter().find_map(|instance| {
                    let value = instance.labels.value(label)?;
                    (value != &**text && Version::parse(value)? == version).then_some((instance, value))
                });
                if let Some((instance, value)) = alike {
                    let message =
                        format!("`{label}` of {} is `{value}`, which is `{text}` as a version only", instance.id);
                    found.report(term.span, message, "`==` and `in` compare text");
                }
            }
        });
    }
}
