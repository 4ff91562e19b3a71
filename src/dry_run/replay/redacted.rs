//! Redacted fields: which rules read them, so that what depends on a hash in place of a value is not passed off as known.

use crate::engine::expr::ast::{Expr, Field};
use crate::engine::label::Text;
use crate::engine::route::{Decision, FileIdx, Router, RuleIdx};
use crate::engine::rules::{Action, LabelSource, Limit, Rule, RuleFile};

/// For each file, the fields of each rule.
#[derive(Debug, Default)]
pub struct Redactions {
    files: Vec<Reads>,
}

#[derive(Debug)]
struct Reads {
    rules: Vec<Vec<Word>>,
    /// Whether the client decides who may send control headers.
    trusts: bool,
}

/// A field as `access_log: {redact: …}` names it.
type Word = String;

impl Redactions {
    /// What a router's rules read.
    #[must_use]
    pub fn of(router: &Router) -> Self {
        let reads = |file: &RuleFile| Reads {
            rules: file.rules.iter().map(|rule| words(file, rule)).collect(),
            trusts: file.trusted.is_some(),
        };
        Self { files: router.files.iter().map(|file| reads(&file.ruleset)).collect() }
    }

    /// The first rule that was asked and reads one of these fields. `None`: the decision stands whatever they were.
    #[must_use]
    pub fn reader(&self, redacted: &[String], decision: &Decision) -> Option<(FileIdx, RuleIdx)> {
        if redacted.is_empty() {
            return None;
        }
        let file = decision.file?;
        let reads = &self.files[file as usize];
        if reads.trusts && redacted.iter().any(|field| field == "client") && !reads.rules.is_empty() {
            return Some((file, 0));
        }
        let asked = decision.rule.map_or(reads.rules.len(), |rule| rule as usize + 1);
        let found = reads.rules[..asked].iter().position(|words| words.iter().any(|word| redacted.contains(word)));
        Some((file, found? as RuleIdx))
    }
}

fn words(file: &RuleFile, rule: &Rule) -> Vec<Word> {
    let mut words = Vec::new();
    let mut read = |field: &Field| add(file, field, &mut words);
    let mut expr = |expr: &Expr| expr.fields(&mut |field| read(field));
    rule.when.iter().for_each(&mut expr);
    let pools: Vec<&Text> = match &rule.action {
        Action::To(list) => list.iter().map(|pool| &pool.value).collect(),
        Action::Split(split) => {
            split.key.iter().for_each(|key| read(&key.value));
            split.arms.iter().flat_map(|arm| &arm.to).map(|pool| &pool.value).collect()
        }
        Action::Redirect { .. } | Action::Respond { .. } => Vec::new(),
    };
    for pool in file.pools.iter().filter(|pool| pools.contains(&&pool.name.value)) {
        for (_, label) in pool.select.references() {
            read(&Field::RequestLabel(label.into()));
        }
    }
    if let Some(Limit { key: Some(key), .. }) = &rule.policies.message.limit {
        read(key);
    }
    words
}

fn add(file: &RuleFile, field: &Field, words: &mut Vec<Word>) {
    match field {
        Field::Header(name) => words.push(format!("header.{name}")),
        Field::Cookie(name) => words.push(format!("cookie.{name}")),
        Field::Query(_) => words.push("query".into()),
        Field::ClientIp => words.push("client".into()),
        Field::RequestLabel(name) => {
            // A label reads only labels declared before it, so this ends.
            let Some(at) = file.labels.iter().position(|label| label.name.value == *name) else { return };
            for source in &file.labels[at].sources {
                match source {
                    LabelSource::Field(Field::RequestLabel(other)) => {
                        if file.labels[..at].iter().any(|label| label.name.value == *other) {
                            add(file, &Field::RequestLabel(other.clone()), words);
                        }
                    }
                    LabelSource::Field(field) => add(file, field, words),
                    LabelSource::Fixed(_) => {}
                }
            }
        }
        _ => {}
    }
}
