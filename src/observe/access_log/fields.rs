//! Which fields of a request the loaded rules read; nothing else of the headers is logged.

use std::collections::BTreeSet;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use crate::engine::expr::ast::{Expr, ExprKind, Field};
use crate::engine::label::Text;
use crate::engine::policy::Balance;
use crate::engine::rules::{Action, LabelSource, Policies, RuleFile, RuleSet};

use super::record::Copied;

/// The header and cookie names that conditions, keys and labels read. Made when rules are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadFields {
    /// Lower case, sorted, without `cookie`.
    pub headers: Vec<HeaderName>,
    /// Sorted.
    pub cookies: Vec<Text>,
}

impl ReadFields {
    /// What these rules read.
    #[must_use]
    pub fn of(rules: &RuleSet) -> Self {
        Self::of_files(rules.files.iter().map(|file| &**file))
    }

    /// What the rules of these files read.
    #[must_use]
    pub fn of_files<'f>(files: impl IntoIterator<Item = &'f RuleFile>) -> Self {
        let mut seen = Seen::default();
        for file in files {
            file.labels.iter().flat_map(|label| &label.sources).for_each(|source| {
                if let LabelSource::Field(field) = source {
                    seen.field(field);
                }
            });
            seen.balance(file.policies.balance.as_ref());
            seen.edits(&file.policies);
            seen.limit(file.policies.message.limit.as_ref().and_then(|l| l.key.as_ref()));
            file.pools.iter().for_each(|pool| seen.balance(pool.balance.as_ref()));
            for rule in &file.rules {
                rule.when.iter().for_each(|when| seen.expr(when));
                if let Action::Split(split) = &rule.action {
                    split.key.iter().for_each(|key| seen.field(&key.value));
                }
                seen.balance(rule.policies.balance.as_ref());
                seen.edits(&rule.policies);
                seen.limit(rule.policies.message.limit.as_ref().and_then(|l| l.key.as_ref()));
            }
        }
        seen.headers.remove("cookie");
        Self {
            headers: seen.headers.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok()).collect(),
            cookies: seen.cookies.into_iter().collect(),
        }
    }

    /// Copies what is read out of a request's headers. Values of headers are shared, not copied.
    #[must_use]
    pub fn copy(&self, headers: &HeaderMap) -> Copied {
        let mut copied = Copied::default();
        for name in &self.headers {
            copied.headers.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        if self.cookies.is_empty() {
            return copied;
        }
        for pair in headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')) {
            let pair = pair.trim_ascii();
            let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let name = &pair[..at];
            let Some(name) = self.cookies.iter().find(|known| known.as_bytes() == name) else { continue };
            // The first of a name is the one that rules read.
            if copied.cookies.iter().all(|(seen, _)| seen != name) {
                copied.cookies.push((Text::clone(name), pair[at + 1..].into()));
            }
        }
        copied
    }
}

#[derive(Default)]
struct Seen {
    headers: BTreeSet<String>,
    cookies: BTreeSet<Text>,
}

impl Seen {
    fn field(&mut self, field: &Field) {
        match field {
            Field::Header(name) => {
                self.headers.insert(name.as_str().to_owned());
            }
            Field::Cookie(name) => {
                self.cookies.insert(Text::clone(name));
            }
            Field::Label(_)
            | Field::Builtin(_)
            | Field::Method
            | Field::Scheme
            | Field::Host
            | Field::Path
            | Field::Query(_)
            | Field::ClientIp
            | Field::TlsSni
            | Field::TlsClientSan
            | Field::RequestLabel(_) => {}
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Or(parts) | ExprKind::And(parts) => parts.iter().for_each(|part| self.expr(part)),
            ExprKind::Not(inner) => self.expr(inner),
            ExprKind::Test(test) => self.field(&test.field),
            ExprKind::Percent { fields, .. } => fields.iter().for_each(|field| self.field(field)),
        }
    }

    /// What values of headers are put together from.
    fn edits(&mut self, policies: &Policies) {
        let edits = policies.message.headers.iter().flat_map(|edits| [&edits.request, &edits.response]);
        let values = edits.flat_map(|edit| edit.set.iter().chain(&edit.add));
        values.flat_map(|(_, value)| value.fields()).for_each(|field| self.field(field));
    }

    fn limit(&mut self, key: Option<&Field>) {
        key.into_iter().for_each(|field| self.field(field));
    }

    /// The key of `hash(KEY)` is kept as written.
    fn balance(&mut self, balance: Option<&Balance>) {
        let Some(Balance::Hash(key)) = balance else { return };
        let named = |prefix: &str| {
            let rest = key.strip_prefix(prefix)?;
            let quoted = rest.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]"));
            quoted.or_else(|| rest.strip_prefix('.'))
        };
        if let Some(name) = named("header") {
            self.headers.insert(name.to_ascii_lowercase());
        } else if let Some(name) = named("cookie") {
            self.cookies.insert(name.into());
        }
    }
}
