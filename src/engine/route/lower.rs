//! One rule file to its part of the router: names become slots, policies are resolved, patterns are gathered.

mod messages;
mod pools;

use std::sync::Arc;

use regex_automata::PatternID;
use rustc_hash::FxHashMap;

use super::condition::{Ask, Condition};
use super::cookie;
use super::index::RuleIndex;
use super::patterns::Patterns;
use super::propagate::Propagated;
use super::reader::{Fields, Label, Slot, Source};
use super::router::{Action, Arm, PoolSlot, RouterFile, RouterPool, RouterRule, RulePolicies, Split};
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::engine::expr::anchored;
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op};
use crate::engine::label::Text;
use crate::engine::policy::Balance;
use crate::engine::rules::{self, LabelSource, Policies, RuleFile};

/// Above this many texts, `in` is a set.
const FEW_TEXTS: usize = 16;

/// Lowers a file. `sets` numbers the pattern sets of the whole router.
pub(super) fn file(file: &Arc<RuleFile>, sets: &mut usize, out: &mut Diagnostics) -> RouterFile {
    let mut lowering = Lowering::new(file, out);
    lowering.labels();
    let top = lowering.policies(&file.policies, None, file.service.span);
    let mut rules: Vec<RouterRule> = file.rules.iter().map(|rule| lowering.rule(rule, &top)).collect();
    lowering.remaining_pools();
    let any = (lowering.pools.len() - 1) as PoolSlot;
    let hashed = lowering.keys_of([any]);
    for rule in &mut rules {
        let else_any = |fallback: Option<&rules::Else>| matches!(fallback, Some(rules::Else::Any));
        let file_else = file.fallback.as_ref().map(|fallback| &fallback.value);
        let any = (else_any(rule.fallback.as_ref()) || else_any(file_else)).then_some(any);
        rule.hashed = lowering.keys_of(rule.pools().chain(any));
    }
    lowering.patterns(sets);
    let (control_headers, control_cookies) = lowering.control();
    let propagate = lowering.propagate();
    let Lowering { fields, pools, .. } = lowering;
    let watches_latency = pools.iter().any(|pool| pool.balance == Balance::Ewma);
    let index = RuleIndex::new(rules.iter().map(|rule| &rule.condition), &fields);
    RouterFile {
        service: Text::clone(&file.service.value),
        pools,
        rules,
        fallback: file.fallback.as_ref().map(|fallback| fallback.value),
        policies: Arc::new(top),
        eject: file.eject.clone().unwrap_or_default(),
        overload: file.overload,
        check: file.check.clone(),
        slow_start: file.slow_start,
        upstream: file.upstream.clone().unwrap_or_default(),
        locality: file.locality.clone().unwrap_or_default(),
        lanes: file.lanes.clone(),
        cookie: cookie::name(&file.service.value),
        fields,
        hashed,
        watches_latency,
        index,
        propagate,
        control_headers,
        control_cookies,
        control_baggage: file.propagate.iter().filter_map(|propagate| propagate.baggage.clone()).collect(),
        ruleset: Arc::clone(file),
    }
}

struct Lowering<'f, 'o> {
    file: &'f RuleFile,
    fields: Fields,
    slots: FxHashMap<Field, u32>,
    /// Patterns by field: each text once.
    texts: Vec<(u32, Vec<Text>)>,
    pools: Vec<RouterPool>,
    out: &'o mut Diagnostics,
}

impl<'f, 'o> Lowering<'f, 'o> {
    fn new(file: &'f RuleFile, out: &'o mut Diagnostics) -> Self {
        let (fields, slots) = (Fields::default(), FxHashMap::default());
        Self { file, fields, slots, texts: Vec::new(), pools: Vec::new(), out }
    }

    fn labels(&mut self) {
        for label in &self.file.labels {
            let sources = label.sources.iter().map(|source| match source {
                LabelSource::Fixed(text) => Source::Fixed(Text::clone(text)),
                LabelSource::Field(field) => Source::Slot(self.slot(field, label.name.span)),
            });
            let sources = sources.collect();
            self.fields.labels.push(Label { name: Text::clone(&label.name.value), sources });
        }
    }

    /// The slot of a field. A request label may only read what was declared before it.
    fn slot(&mut self, field: &Field, span: Span) -> u32 {
        if let Some(slot) = self.slots.get(field) {
            return *slot;
        }
        let label = match field {
            Field::RequestLabel(name) => self.label(name, span),
            _ => 0,
        };
        let slot = self.fields.slots.len() as u32;
        self.fields.slots.push(Slot { field: field.clone(), control: false, label });
        self.slots.insert(field.clone(), slot);
        slot
    }

    fn label(&mut self, name: &Text, span: Span) -> u32 {
        match self.fields.labels.iter().position(|label| label.name == *name) {
            Some(at) => at as u32,
            None => {
                let message = format!("no request label is named `{name}` at this place");
                self.out.push(Diagnostic::error("E134", &self.file.source, span, message));
                0
            }
        }
    }

    fn rule(&mut self, rule: &rules::Rule, file: &RulePolicies) -> RouterRule {
        let condition = rule.when.as_ref().map_or(Condition::Always, |when| self.condition(when, &rule.salt));
        let policies = self.policies(&rule.policies, Some((rule, file)), rule.name.span);
        let (action, last) = self.action(rule, &policies.balance);
        let panic = last.and_then(|slot| Some((slot, self.pools[slot as usize].panic?)));
        let labelled = |slot: &PoolSlot| !self.pools[*slot as usize].refers.is_empty();
        let mut rule = RouterRule {
            name: Text::clone(&rule.name.value),
            condition,
            action,
            fallback: rule.fallback.as_ref().map(|fallback| fallback.value),
            policies: Arc::new(policies),
            panic,
            labelled: Vec::new(),
            hashed: Vec::new(),
        };
        rule.labelled = rule.pools().filter(labelled).collect();
        rule
    }

    /// The policies of a file's top, or of a rule, whose objects replace the file's whole.
    fn policies(
        &mut self,
        written: &Policies,
        rule: Option<(&rules::Rule, &RulePolicies)>,
        span: Span,
    ) -> RulePolicies {
        let none = RulePolicies::default();
        let file = rule.map_or(&none, |(_, file)| file);
        let when = rule.and_then(|(rule, _)| rule.when.as_ref());
        let own = written.message.limit.as_ref().zip(rule);
        let key = written.message.limit.as_ref().map(|limit| limit.key.clone());
        RulePolicies {
            timeouts: written.timeout.unwrap_or(file.timeouts),
            retry: written.retry.as_ref().unwrap_or(&file.retry).clone(),
            balance: written.balance.as_ref().unwrap_or(&file.balance).clone(),
            hedge: written.hedge.or(file.hedge),
            limit_of: own.map_or_else(|| "".into(), |(_, (rule, _))| Text::clone(&rule.name.value)),
            limit_key: key.map_or(file.limit_key, |key| key.map(|field| self.slot(&field, span))),
            message: self.messages(&written.message, &file.message, when, span),
        }
    }

    /// The action, and the one pool that nothing backs.
    fn action(&mut self, rule: &rules::Rule, balance: &Balance) -> (Action, Option<PoolSlot>) {
        match &rule.action {
            rules::Action::To(names) => {
                let list = self.list(names, false, balance);
                let last = list.last().copied();
                (Action::To(list), last)
            }
            rules::Action::Split(split) => {
                let heaviest = heaviest(&split.arms);
                let arm = |(at, arm): (usize, &rules::Arm)| Arm {
                    name: arm.to.iter().map(|name| &*name.value).collect::<Vec<_>>().join(",").into(),
                    to: self.list(&arm.to, at != heaviest, balance),
                    weight: arm.weight,
                };
                let arms: Vec<Arm> = split.arms.iter().enumerate().map(arm).collect();
                let last = arms.get(heaviest).and_then(|arm| arm.to.last().copied());
                let total: u64 = arms.iter().map(|arm| arm.weight).sum();
                if total == 0 {
                    let message = format!("no arm of rule `{}` has a weight", rule.name.value);
                    self.out.push(Diagnostic::error("E135", &self.file.source, rule.name.span, message));
                }
                let key = split.key.iter().map(|field| self.slot(&field.value, field.span)).collect();
                let salt = Text::clone(&split.salt);
                (Action::Split(Split { arms, total, key, mint: split.mint, salt, epoch: split.epoch }), last)
            }
            rules::Action::Redirect { status, location } => {
                (Action::Redirect { status: *status, location: Text::clone(location) }, None)
            }
            rules::Action::Respond { status, body, content_type } => {
                let (body, content_type) = (Text::clone(body), Text::clone(content_type));
                (Action::Respond { status: *status, body, content_type }, None)
            }
        }
    }

    fn condition(&mut self, expr: &Expr, salt: &Text) -> Condition {
        match &expr.kind {
            ExprKind::Or(parts) => Condition::Or(parts.iter().map(|part| self.condition(part, salt)).collect()),
            ExprKind::And(parts) => Condition::And(parts.iter().map(|part| self.condition(part, salt)).collect()),
            ExprKind::Not(part) => Condition::Not(Box::new(self.condition(part, salt))),
            ExprKind::Percent { fields, at_least, share } => {
                let key = fields.iter().map(|field| self.slot(field, expr.span)).collect();
                Condition::Percent { key, salt: Text::clone(salt), at_least: *at_least, share: *share }
            }
            ExprKind::Test(test) => {
                let slot = self.slot(&test.field, expr.span);
                let ask = match &test.op {
                    Op::Matches(text) => self.pattern(slot, text),
                    Op::InFile(path) => {
                        let message = format!("the list `{path}` was not read");
                        self.out.push(Diagnostic::error("E032", &self.file.source, expr.span, message));
                        Ask::Value(test.op.clone())
                    }
                    Op::In(texts) if texts.len() > FEW_TEXTS => Ask::OneOf(texts.iter().cloned().collect()),
                    op => Ask::Value(op.clone()),
                };
                Condition::Test { slot, ask, negated: test.negated }
            }
        }
    }

    fn pattern(&mut self, slot: u32, text: &Text) -> Ask {
        let set = self.texts.iter().position(|(of, _)| *of == slot).unwrap_or_else(|| {
            self.texts.push((slot, Vec::new()));
            self.texts.len() - 1
        });
        let texts = &mut self.texts[set].1;
        let id = texts.iter().position(|known| known == text).unwrap_or_else(|| {
            texts.push(Text::clone(text));
            texts.len() - 1
        });
        Ask::Pattern { set: set as u32, id: PatternID::must(id) }
    }

    /// Compiles what was gathered.
    fn patterns(&mut self, sets: &mut usize) {
        for (slot, texts) in std::mem::take(&mut self.texts) {
            let texts: Vec<String> = texts.iter().map(|text| anchored(text)).collect();
            match Patterns::new(*sets, slot, &texts) {
                Ok(patterns) => self.fields.patterns.push(Arc::new(patterns)),
                Err(error) => {
                    let span = self.file.service.span;
                    let message = format!("the patterns of this file cannot be compiled together: {error}");
                    self.out.push(Diagnostic::error("E133", &self.file.source, span, message));
                }
            }
            *sets += 1;
        }
    }

    fn propagate(&mut self) -> Vec<Propagated> {
        let file = self.file;
        let propagated = |written: &rules::Propagate| Propagated {
            label: self.label(&written.label, file.service.span),
            header: written.header.clone(),
            baggage: written.baggage.clone(),
        };
        file.propagate.iter().map(propagated).collect()
    }

    /// What only a trusted peer may send; marks the fields that read it.
    fn control(&mut self) -> (Vec<http::HeaderName>, Vec<Text>) {
        let (mut headers, mut cookies) = (Vec::new(), Vec::new());
        if self.file.trusted.is_none() {
            return (headers, cookies);
        }
        for source in self.fields.labels.iter().flat_map(|label| &label.sources) {
            match source {
                Source::Slot(slot) => match &self.fields.slots[*slot as usize].field {
                    Field::Header(name) => headers.push(name.clone()),
                    Field::Cookie(name) => cookies.push(Text::clone(name)),
                    _ => {}
                },
                Source::Fixed(_) => {}
            }
        }
        headers.extend(self.file.propagate.iter().filter_map(|propagate| propagate.header.clone()));
        for slot in &mut self.fields.slots {
            slot.control = match &slot.field {
                Field::Header(name) => headers.contains(name),
                Field::Cookie(name) => cookies.contains(name),
                _ => false,
            };
        }
        (headers, cookies)
    }
}

/// The arm with the largest weight; of equals the last written.
fn heaviest(arms: &[rules::Arm]) -> usize {
    arms.iter().enumerate().max_by_key(|(_, arm)| arm.weight).map_or(0, |(at, _)| at)
}
