//! Header edits and rewriting: fields become slots, values that never change are made once.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::Lowering;
use crate::engine::diagnostic::{Diagnostic, Span};
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op};
use crate::engine::label::Text;
use crate::engine::route::message::{Edit, Edits, Messages, Mirror, Piece, Prefix, Rewrite, Value};
use crate::engine::rules::{self, MessagePolicies, Part, Template};

impl Lowering<'_, '_> {
    /// The messages of a file's top, or of a rule with this condition. `file`: what holds where a rule says nothing.
    pub(super) fn messages(
        &mut self,
        written: &MessagePolicies,
        file: &Messages,
        when: Option<&Expr>,
        span: Span,
    ) -> Messages {
        let headers = written.headers.as_ref().map(|edits| Arc::new(self.edits(edits, span)));
        let rewrite = written.rewrite.as_ref().map(|rewrite| Arc::new(self.rewrite(rewrite, when, span)));
        let mirror =
            written.mirror.as_ref().map(|mirror| Mirror { pool: self.mirror_pool(&mirror.to), share: mirror.share });
        Messages {
            mirror: mirror.or(file.mirror),
            headers: headers.or_else(|| file.headers.clone()),
            rewrite: rewrite.or_else(|| file.rewrite.clone()),
            limit: written.limit.as_ref().or(file.limit.as_ref()).cloned(),
        }
    }

    fn edits(&mut self, edits: &rules::HeaderEdits, span: Span) -> Edits {
        let mut reads = 0;
        let request = self.edit(&edits.request, &mut reads, span);
        let response = self.edit(&edits.response, &mut reads, span);
        Edits { request, response, reads }
    }

    fn edit(&mut self, edit: &rules::HeaderEdit, reads: &mut usize, span: Span) -> Edit {
        let set = edit.set.iter().map(|(name, value)| self.value(name, value, reads, span)).collect();
        let add = edit.add.iter().map(|(name, value)| self.value(name, value, reads, span)).collect();
        Edit { remove: edit.remove.clone(), set, add }
    }

    fn value(&mut self, name: &HeaderName, written: &Template, reads: &mut usize, span: Span) -> (HeaderName, Value) {
        if let Some(text) = written.fixed() {
            return (name.clone(), Value::Fixed(self.field_value(text, span)));
        }
        let pieces = written.parts.iter().map(|part| match part {
            Part::Text(text) => Piece::Text(Text::clone(text)),
            Part::Field(field) => Piece::Slot(self.slot(field, span)),
        });
        let pieces = pieces.collect();
        *reads += 1;
        (name.clone(), Value::Read { at: *reads - 1, pieces })
    }

    /// `path` replaces what a `path under …` of the rule's own condition names; without one, what the file claims.
    fn rewrite(&mut self, written: &rules::Rewrite, when: Option<&Expr>, span: Span) -> Rewrite {
        let path = written.path.as_ref().map(|to| Prefix { from: when.and_then(under), to: Text::clone(to) });
        let host = written.host.as_ref().map(|host| self.field_value(host, span));
        Rewrite { path, host }
    }

    fn field_value(&mut self, text: &str, span: Span) -> HeaderValue {
        HeaderValue::from_str(text).unwrap_or_else(|_| {
            let message = format!("`{}` cannot be the value of a header", text.escape_debug());
            self.out.push(Diagnostic::error("E030", &self.file.source, span, message));
            HeaderValue::from_static("")
        })
    }
}

/// The path of a `path under …` that every request of the condition meets: the whole condition, or a term of its `and`.
fn under(when: &Expr) -> Option<Text> {
    match &when.kind {
        ExprKind::And(terms) => terms.iter().find_map(under),
        ExprKind::Test(test) => match (&test.field, &test.op, test.negated) {
            (Field::Path, Op::Under(prefix), false) => Some(Text::clone(prefix)),
            _ => None,
        },
        ExprKind::Or(_) | ExprKind::Not(_) | ExprKind::Percent { .. } => None,
    }
}
