//! Lints about what happens to messages on their way.

use super::prove::Want;
use super::witness::METHOD;
use super::{Certainty, Findings};
use crate::engine::expr::ast::{Field, Op};
use crate::engine::rules::ruleset::{Action, LabelSource, Mirror, Rule, RuleFile};

/// The mirror in force for a rule that sends requests on.
fn mirror<'a>(file: &'a RuleFile, rule: &'a Rule) -> Option<&'a Mirror> {
    let sends = matches!(rule.action, Action::To(_) | Action::Split(_));
    let own = rule.policies.message.mirror.as_ref().or(file.policies.message.mirror.as_ref());
    own.filter(|mirror| sends && mirror.share > 0)
}

pub(super) fn mirror_of_itself(found: &mut Findings<'_>) {
    let file = found.file;
    for rule in &file.rules {
        let Some(mirror) = mirror(file, rule) else { continue };
        // A pool that only stands in may get copies: that is how it is warmed up.
        let goes_to = match &rule.action {
            Action::To(pools) => pools.first().is_some_and(|pool| pool.value == mirror.to.value),
            Action::Split(split) => {
                let mut live = split.arms.iter().filter(|arm| arm.weight > 0);
                live.any(|arm| arm.to.first().is_some_and(|pool| pool.value == mirror.to.value))
            }
            Action::Redirect { .. } | Action::Respond { .. } => false,
        };
        if goes_to {
            let message = format!(
                "`{}` sends requests to `{1}` and copies of them to `{1}` too",
                rule.name.value, mirror.to.value
            );
            found.report(mirror.to.span, message, "the same instances get them twice").certainty(Certainty::Proven);
        }
    }
}

pub(super) fn mirrored_writes(found: &mut Findings<'_>) {
    let file = found.file;
    let idempotent = Op::In(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"].map(Into::into).into());
    for rule in &file.rules {
        let Some(mirror) = mirror(file, rule) else { continue };
        let mut wants = vec![Want::Test(&METHOD, &idempotent, false)];
        wants.extend(rule.when.as_ref().map(|when| Want::Expr(when, true, &rule.salt)));
        if !found.prover.never(wants) {
            let message = format!("`{}` mirrors methods that are not idempotent", rule.name.value);
            found
                .report(mirror.to.span, message, "whatever these instances write is written twice")
                .help("mirror what only reads: `when: method in [GET, HEAD]`");
        }
    }
}

pub(super) fn propagated_unread(found: &mut Findings<'_>) {
    let file = found.file;
    let is_read = |name: &http::HeaderName| {
        let mut sources = file.labels.iter().flat_map(|label| &label.sources);
        sources.any(|source| matches!(source, LabelSource::Field(Field::Header(read)) if read == name))
    };
    for header in file.propagate.iter().filter_map(|propagate| propagate.header.as_ref()) {
        if !is_read(header) {
            let message = format!("`{header}` is sent to instances, and no request label is read from it");
            found.report(
                found.key("propagate"),
                message,
                "a service that is called further on does not see the label; read it in `labels`",
            );
        }
    }
}
