//! `check`: what is wrong, and what is odd, about rules.

use crate::engine::diagnostic::{Diagnostics, Severity};
use crate::engine::route::Router;
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

/// Adds to what parsing found: what compiling the rules finds, where they parsed, and the lints of every sound file.
#[must_use]
pub fn check(rules: &RuleSet, mut parsed: Diagnostics, catalog: Option<&Catalog>) -> Verdict {
    if !parsed.has_errors()
        && let Err(mut more) = Router::compile(rules)
    {
        parsed.0.append(&mut more.0);
    }
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
