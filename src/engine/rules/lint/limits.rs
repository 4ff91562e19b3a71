//! Lints on limits in time and number that contradict one another, so that one of them never takes effect.

use super::{Certainty, Findings};
use crate::engine::diagnostic::Span;
use crate::engine::policy::{Concurrency, Hedge, Retry, Timeouts};
use crate::engine::rules::ruleset::{Action, Rule, RuleFile};

/// What is in force for a rule that sends requests on, or for all those that say nothing of their own.
struct InForce {
    /// Where a finding is shown: at the rule, or at the key of the file's top.
    rule: Option<(String, Span)>,
    timeouts: Timeouts,
    retry: Retry,
    hedge: Option<Hedge>,
}

impl InForce {
    fn of(file: &RuleFile, rule: Option<&Rule>) -> Self {
        let (own, beside) = (rule.map(|rule| &rule.policies), &file.policies);
        Self {
            rule: rule.map(|rule| (rule.name.value.to_string(), rule.name.span)),
            timeouts: own.and_then(|own| own.timeout).or(beside.timeout).unwrap_or_default(),
            retry: own.and_then(|own| own.retry.clone()).or(beside.retry.clone()).unwrap_or_default(),
            hedge: own.and_then(|own| own.hedge).or(beside.hedge),
        }
    }

    /// When a try is ended at the latest; `None`: never.
    fn try_ends(&self) -> Option<u64> {
        [self.retry.per_try, self.timeouts.total].into_iter().filter(|limit| *limit > 0).min()
    }
}

/// Each rule that says something of its own, and once what the file says.
fn in_force(file: &RuleFile) -> Vec<InForce> {
    let sends = |rule: &&Rule| matches!(rule.action, Action::To(_) | Action::Split(_));
    let says = |rule: &&Rule| {
        let own = &rule.policies;
        own.timeout.is_some() || own.retry.is_some() || own.hedge.is_some()
    };
    let mut all = vec![InForce::of(file, None)];
    all.extend(file.rules.iter().filter(sends).filter(says).map(|rule| InForce::of(file, Some(rule))));
    all
}

/// Reports at the rule, or at the first of these keys that the file's top has.
fn report(found: &mut Findings<'_>, at: &InForce, keys: &[&str], message: &str, label: &str, help: &str) {
    let span = at.rule.as_ref().map_or_else(
        || {
            let spans = keys.iter().map(|key| found.key(key));
            spans.into_iter().find(|span| *span != found.file.service.span).unwrap_or(found.file.service.span)
        },
        |(_, span)| *span,
    );
    let message = match &at.rule {
        Some((name, _)) => format!("under `{name}`, {message}"),
        None => message.to_owned(),
    };
    found.report(span, message, label).certainty(Certainty::Proven).help(help);
}

pub(super) fn tries_without_time(found: &mut Findings<'_>) {
    for at in in_force(found.file) {
        let (per_try, total) = (at.retry.per_try, at.timeouts.total);
        if at.retry.attempts > 1 && per_try > 0 && total > 0 && per_try >= total {
            let message = format!("one try may take {per_try} ms, the whole request {total} ms");
            let label = "after a try that was too slow there is no time for another one";
            report(
                found,
                &at,
                &["retry", "timeout"],
                &message,
                label,
                "make `retry.per_try` at most half of `timeout.total`",
            );
        }
    }
}

pub(super) fn timeouts_without_retry(found: &mut Findings<'_>) {
    for at in in_force(found.file) {
        let Timeouts { first_byte, total, .. } = at.timeouts;
        let Retry { timeout, per_try, attempts, .. } = at.retry;
        if timeout && attempts > 1 && per_try == 0 && total > 0 && total <= first_byte {
            let message = format!(
                "`retry` is `on: [timeout]`, but `first_byte` ({first_byte} ms) is not before `total` ({total} ms)"
            );
            let label = "a try that is too slow has used up the whole request's time";
            report(found, &at, &["retry", "timeout"], &message, label, "bound each try by `retry: {per_try: …}`");
        }
    }
}

pub(super) fn hedge_too_late(found: &mut Findings<'_>) {
    for at in in_force(found.file) {
        let Some(Hedge::After(after)) = at.hedge else { continue };
        let first_byte = Some(at.timeouts.connect + at.timeouts.first_byte);
        let Some(ends) = at.try_ends().into_iter().chain(first_byte).min() else { continue };
        if after >= ends {
            let message = format!("the second try comes after {after} ms, and the first one ends after {ends} ms");
            let label = "it is never sent";
            report(
                found,
                &at,
                &["hedge", "retry", "timeout"],
                &message,
                label,
                "hedge well before the first try ends, or `after: p95`",
            );
        }
    }
}

pub(super) fn rate_for_all_together(found: &mut Findings<'_>) {
    let file = found.file;
    let keyless = |limit: &crate::engine::rules::Limit| limit.rate_milli > 0 && limit.key.is_none();
    let own = file.rules.iter().filter(|rule| rule.policies.message.limit.as_ref().is_some_and(keyless));
    let own: Vec<_> = own.map(|rule| (rule.name.span, format!("`{}`", rule.name.value))).collect();
    let top = file.policies.message.limit.as_ref().filter(|limit| keyless(limit));
    let top = top.map(|_| (found.key("limit"), "the file".to_owned()));
    for (span, whose) in own.into_iter().chain(top) {
        let message = format!("the rate of {whose} is for all clients together");
        let label = "one client can use up what all others have";
        found
            .report(span, message, label)
            .help("count each by itself: `key: client.ip`, or a header that names the caller");
    }
}

pub(super) fn overload_contradicts(found: &mut Findings<'_>) {
    let Some(overload) = found.file.overload else { return };
    let span = found.key("overload");
    if let (Concurrency::Fixed(instance), Concurrency::Fixed(service)) = (overload.instance, overload.service)
        && service < instance
    {
        let message = format!("the whole service carries {service} at once, one of its instances {instance}");
        let label = "the limit of an instance is never reached, and nobody ever waits";
        found.report(span, message, label).certainty(Certainty::Proven);
    }
    if overload.instance == Concurrency::Unlimited {
        return;
    }
    for at in in_force(found.file) {
        let (wait, total) = (overload.wait, at.timeouts.total);
        if total > 0 && wait >= total {
            let message = format!("a request may wait {wait} ms for a place, and have {total} ms in all");
            let label = "who waits to the end is never served";
            report(found, &at, &["overload"], &message, label, "wait for a small part of `timeout.total`");
        }
    }
}
