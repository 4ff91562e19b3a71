//! `label.NAME` in a selector: only as a top-level `and` term, at most two (RULES.md, *Request labels*),
//! so that a pool's combinations can be resolved at publication.

use std::sync::Arc;

use super::ast::{Expr, ExprKind, Op, Operand};
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, nearest};
use crate::engine::label::Text;

const MOST: usize = 2;

/// Whether every reference stands where it may and names a declared label; reports those that do not.
pub(super) fn check(expr: &Expr, source: &Arc<Source>, labels: Option<&[Text]>, out: &mut Diagnostics) -> bool {
    let before = out.0.len();
    let top: Vec<*const Expr> = match &expr.kind {
        ExprKind::And(terms) => terms.iter().map(std::ptr::from_ref).collect(),
        _ => vec![std::ptr::from_ref(expr)],
    };
    let mut seen = 0;
    expr.tests(&mut |term, test| {
        let Op::Equal(Operand::RequestLabel(name)) = &test.op else { return };
        seen += 1;
        let refuse = |message: &str| Diagnostic::error("E025", source, term.span, message);
        if test.negated || !top.contains(&std::ptr::from_ref(term)) {
            out.push(
                refuse("a comparison with a request label may stand only as a top-level `and` term")
                    .label("not under `or` or `not`"),
            );
        } else if seen > MOST {
            out.push(refuse("a selector may compare with two request labels at most").label("one too many"));
        } else if let Some(missing) = undeclared(name, labels) {
            out.push(Diagnostic::error("E019", source, term.span, missing.0).label(missing.1));
        }
    });
    out.0.len() == before
}

/// Message and label for a request label that the file does not declare.
pub(super) fn undeclared(name: &str, labels: Option<&[Text]>) -> Option<(String, String)> {
    let labels = labels?;
    if labels.iter().any(|label| &**label == name) {
        return None;
    }
    let near = nearest(name, labels.iter().map(|label| &**label));
    let label = near.map_or_else(|| "declare it under `labels`".to_owned(), |near| format!("did you mean `{near}`?"));
    Some((format!("no request label is named `{name}`"), label))
}
