//! Lints that compare selectors with what the catalog's instances say.

use super::prove::Want;
use super::witness::EXISTS;
use super::{Certainty, Findings};
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op, Operand, Version};

pub(super) fn negated_on_missing(found: &mut Findings<'_>) {
    let instances = found.instances();
    for pool in &found.file.pools {
        for (term, label) in negated(&pool.select, false) {
            let field = Field::Label(label.into());
            let lacking_it = vec![Want::Expr(&pool.select, true, ""), Want::Test(&field, &EXISTS, false)];
            if found.prover.never(lacking_it) {
                continue;
            }
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
            found
                .report(term.span, message, format!("{some}; add `{label} exists` if they are not meant"))
                .certainty(Certainty::Proven);
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
                    found.report(term.span, message, "`==` and `in` compare text").certainty(Certainty::Proven);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::diagnostic::Source;
    use crate::engine::instance::{Instance, Status, Weights};
    use crate::engine::rules::lint::{Catalog, lint_rules};
    use crate::engine::rules::parse_files;

    fn instance(id: &str, labels: &[(&str, &str)]) -> Arc<Instance> {
        Arc::new(Instance {
            identity: id.into(),
            id: id.into(),
            service: "web".into(),
            addr: "127.0.0.1:80".parse().unwrap(),
            host: "127.0.0.1".into(),
            node: "".into(),
            dc: "".into(),
            labels: labels.iter().copied().collect(),
            tags: Arc::new([]),
            weights: Weights::default(),
            status: Status::Passing,
        })
    }

    /// The codes and places that a selector gets beside three instances.
    fn findings(selector: &str) -> Vec<(&'static str, String)> {
        let text = format!("service: web\npools: {{p: {selector}}}\nrules: [{{name: r, to: p}}]\n");
        let (set, out) = parse_files(&[Source::new("t", text.clone())]);
        assert!(out.0.is_empty(), "{}", out.render());
        let instances = vec![
            instance("a", &[("version", "v1.2"), ("env", "prod")]),
            instance("b", &[("version", "1.3"), ("env", "prod"), ("canary", "yes")]),
            instance("c", &[("version", "1.4")]),
        ];
        let catalog = Catalog::from([("web".into(), instances)]);
        let found = lint_rules(&set, Some(&catalog));
        let these = found.0.iter().filter(|d| ["W004", "W008"].contains(&d.code));
        these.map(|d| (d.code, text[d.span.start..d.span.end].to_owned())).collect()
    }

    #[test]
    fn a_negation_that_a_missing_label_decides_is_pointed_at() {
        assert_eq!(findings("env != prod"), [("W004", "env != prod".to_owned())]);
        assert_eq!(findings("not (version == 1.4 or env == prod)"), [("W004", "env == prod".to_owned())]);
        assert_eq!(findings("not env != prod"), []);
        assert_eq!(findings("not env exists and version != 1.4"), []);
        assert_eq!(findings("env == prod"), []);
    }

    #[test]
    fn a_literal_that_is_equal_as_a_version_only_is_pointed_at() {
        assert_eq!(findings("version == 1.2"), [("W008", "version == 1.2".to_owned())]);
        assert_eq!(findings("version >= 1.2 and version == 1.3"), []);
    }
}
