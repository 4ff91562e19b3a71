//! Reading a parsed expression from outside.

use super::ast::{Expr, ExprKind, Field, Op, Operand, Test};

impl Expr {
    /// Every test with the expression it stands in, in written order.
    pub fn tests<'e>(&'e self, visit: &mut impl FnMut(&'e Self, &'e Test)) {
        match &self.kind {
            ExprKind::Or(parts) | ExprKind::And(parts) => {
                for part in parts {
                    part.tests(visit);
                }
            }
            ExprKind::Not(inner) => inner.tests(visit),
            ExprKind::Test(test) => visit(self, test),
            ExprKind::Percent { .. } => {}
        }
    }

    /// Every field that is read, in written order; a field may come more than once.
    pub fn fields<'e>(&'e self, visit: &mut impl FnMut(&'e Field)) {
        match &self.kind {
            ExprKind::Or(parts) | ExprKind::And(parts) => {
                for part in parts {
                    part.fields(visit);
                }
            }
            ExprKind::Not(inner) => inner.fields(visit),
            ExprKind::Test(test) => visit(&test.field),
            ExprKind::Percent { fields, .. } => {
                for field in fields {
                    visit(field);
                }
            }
        }
    }

    /// The request labels that a selector refers to: (instance field, request label), in written order.
    #[must_use]
    pub fn references(&self) -> Vec<(&Field, &str)> {
        let mut found = Vec::new();
        self.tests(&mut |_, test| {
            if let Op::Equal(Operand::RequestLabel(name)) = &test.op {
                found.push((&test.field, &**name));
            }
        });
        found
    }
}
