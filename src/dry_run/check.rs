//! `check`: what is wrong, and what is odd, about rules.

use crate::engine::diagnostic::{Diagnostics, Severity};
use crate::engine::rules::RuleSet;
use crate::engine::rules::lint::{Catalog, lint_rules};

/// What `check` has to say.
#[derive(Debug)]
pub struct Verdict {
    /// Errors and warnings.
    pub diagnostics: Diagnostics,
    /// How many are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
}

/// Adds the lints of the files that parsed to what parsing found.
#[must_use]
pub fn check(rules: &RuleSet, mut parsed: Diagnostics, catalog: Option<&Catalog>) -> Verdict {
    parsed.0.append(&mut lint_rules(rules, catalog).0);
    let (errors, warnings) = (parsed.count(Severity::Error), parsed.count(Severity::Warning));
    Verdict { diagnostics: parsed, errors, warnings }
}

impl Verdict {
    /// Whether the rules may be used, with warnings counted as errors where they are denied.
    #[must_use]
    pub fn passes(&self, deny_warnings: bool) -> bool {
        self.errors == 0 && !(deny_warnings && self.warnings > 0)
    }
}
