//! Findings about rules that can be used but probably do not say what was meant.
//!
//! A lint is an entry of [`LINTS`]: a stable code, what it looks for, and a pure function over the rules as written
//! and, where there are some, the catalog and the rules before. docs/LINT.md shows each with its mending.

mod allow;
mod balancing;
mod candidates;
mod catalog;
mod checks;
mod limits;
mod messages;
mod patterns;
mod pools;
mod prove;
mod reach;
mod settle;
mod shape;
mod spelling;
mod splits;
mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use witness::{ANY_NAME, Ask, Expect, Request};

use self::prove::Prover;
use super::ruleset::{RuleFile, RuleSet};
use crate::engine::diagnostic::{Certainty, Diagnostic, Diagnostics, Severity, Span, nearest};
use crate::engine::expr::ast::{Expr, Field};
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::selector::Selector;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot};
use crate::engine::time::Millis;
use crate::engine::yaml;

/// The instances of each service, for the lints that look at labels.
pub type Catalog = BTreeMap<Text, Vec<Arc<Instance>>>;

/// One lint.
#[derive(Debug)]
pub struct Lint {
    /// Stable code such as `W001`.
    pub code: &'static str,
    /// How bad a finding is.
    pub severity: Severity,
    /// What it looks for, in a few words.
    pub looks_for: &'static str,
    find: fn(&mut Findings<'_>),
}

/// All lints, by code.
pub const LINTS: &[Lint] = &[
    lint(
        "W001",
        "request labels that anybody may send: `trusted` is missing, or holds every address",
        shape::untrusted,
    ),
    lint("W002", "a split without `key`: each request draws afresh", shape::keyless),
    lint("W003", "three or more arms as a map, whose order a formatter may change", shape::map_of_arms),
    lint("W004", "`!=` or `not` deciding on a label that some instances lack", catalog::negated_on_missing),
    lint("W005", "a pool that no rule uses", shape::unused_pool),
    lint("W006", "a finer label before a wider one in `locality.prefer`", shape::finer_first),
    lint("W007", "a pool's setting read as a label, because `select` is missing", shape::setting_as_label),
    lint("W008", "a literal that equals an instance's label as a version but not as text", catalog::version_as_text),
    lint("W009", "a rule that one rule before it covers", reach::unreachable_by_one),
    lint("W010", "a comparison that no request can meet", shape::never),
    lint("W011", "a rule that several rules before it cover together", reach::unreachable_by_several),
    lint("W012", "a condition that no request can meet", reach::contradiction),
    note("W013", "two rules that overlap and go elsewhere", reach::overlap),
    lint("W014", "two pools that select the same instances", pools::same_selection),
    lint("W015", "a selector that matches no instance, or a service that the catalog lacks", pools::selects_nobody),
    lint("W016", "a pool that holds instances of several environments", pools::several_envs),
    lint("W017", "pools of one split that overlap", pools::arms_overlap),
    lint("W018", "instances that no pool in use reaches", pools::unreached),
    lint("W019", "a label that selectors ask for and some instances lack", pools::label_missing),
    lint("W020", "the beginning of a version compared as text", patterns::version_prefix),
    lint("W021", "whole numbers where percents were probably meant", splits::almost_percents),
    lint("W022", "a share of a pool that is less than one of its instances", splits::finer_than_pool),
    lint("W023", "a change of shares that moves more keys than it must", splits::not_monotone),
    lint("W024", "a renamed rule, or another salt or key: users are drawn anew", splits::reshuffled),
    lint("W025", "another epoch: everybody is drawn anew", splits::epoch_raised),
    lint("W026", "a dot in a pattern for hosts that stands for any character", patterns::unescaped_dot),
    lint("W027", "anchors in a pattern that takes the whole value anyway", patterns::anchors),
    lint("W028", "a pattern that is plain text, or a prefix", patterns::plain_pattern),
    lint("W029", "a path's beginning where segments were probably meant", patterns::path_prefix),
    lint("W030", "a header that rules should not read", patterns::header_names),
    lint("W031", "requests that no rule takes, and no `else`", reach::no_catch_all),
    lint("W032", "`else: any` across environments", pools::any_across_envs),
    lint("W033", "retries for methods that are never sent twice", shape::retries_that_never_happen),
    lint("W034", "a pool that cannot stand in for the one before it", pools::failover_to_nowhere),
    lint("W035", "a label with more values than metrics keep", pools::over_the_cap),
    lint("W036", "a label of lanes on some instances, and no `lanes`", pools::lanes_wanted),
    note("W037", "a split whose largest arm stands first", splits::growing_last),
    lint("W038", "a comment that allows a code that there is not", unknown_code),
    lint("W039", "`hash(KEY)` by a field that the requests do not have", balancing::key_that_is_missing),
    note("W040", "`hash(KEY)` by a field that some requests may lack", balancing::key_that_may_be_missing),
    lint("W041", "`slow_start` where no pool has two instances", balancing::slow_start_of_one),
    lint("W042", "`locality` by which everybody is equally near", balancing::locality_without_levels),
    lint("W043", "a mirror to the pool that the rule itself goes to", messages::mirror_of_itself),
    lint("W044", "copies of requests that may write", messages::mirrored_writes),
    lint("W045", "a header that is propagated and read by no request label", messages::propagated_unread),
    lint("W050", "a check whose `timeout` is not shorter than its `interval`", checks::timeout_over_interval),
    lint("W051", "a check that an instance cannot pass", checks::never_passes),
    lint("W052", "a check that a sick instance passes", checks::always_passes),
    lint("W053", "`check_readmits` by nothing but an open connection", checks::readmits_blindly),
    lint("W054", "an ejection by comparison in pools that are too small for it", checks::comparison_of_few),
    lint("W060", "a try that may take as long as the whole request", limits::tries_without_time),
    lint("W061", "retries after a timeout for which there is no time", limits::timeouts_without_retry),
    lint("W062", "a hedge that comes when the first try has ended", limits::hedge_too_late),
    note("W063", "a rate that all clients share", limits::rate_for_all_together),
    lint("W064", "limits of `overload` that contradict one another", limits::overload_contradicts),
    lint("W080", "a path that normalisation never yields", spelling::path_not_normal),
];

const fn lint(code: &'static str, looks_for: &'static str, find: fn(&mut Findings<'_>)) -> Lint {
    Lint { code, severity: Severity::Warning, looks_for, find }
}

const fn note(code: &'static str, looks_for: &'static str, find: fn(&mut Findings<'_>)) -> Lint {
    Lint { code, severity: Severity::Note, looks_for, find }
}

/// What the rules are held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Against<'a> {
    /// The instances, where they are known.
    pub catalog: Option<&'a Catalog>,
    /// The rules before, where there were some.
    pub previous: Option<&'a RuleSet>,
}

/// A finding, and the request that shows it. With `needed`, it is none unless the engine confirms the request.
#[derive(Debug)]
pub struct Finding {
    /// What and where. Without a witness: the caller adds it once it is confirmed.
    pub diagnostic: Diagnostic,
    /// What to ask the engine.
    pub ask: Option<Ask>,
}

/// Every lint over every file, by file and place. What a comment allows is left out.
#[must_use]
pub fn lint_all(set: &RuleSet, against: Against<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    for file in &set.files {
        let picture = picture(file, against.catalog);
        let (mut prover, mut own) = (Prover::default(), Vec::new());
        for lint in LINTS {
            let picture = picture.as_ref();
            let Against { catalog, previous } = against;
            let mut findings = Findings { file, catalog, previous, picture, lint, prover, out: &mut own };
            (lint.find)(&mut findings);
            prover = findings.prover;
        }
        own.sort_by_key(|found| found.diagnostic.span.start);
        let allowed = allow::read(&file.source);
        own.retain(|found| {
            let line = file.source.position(found.diagnostic.span.start).0;
            !allowed.iter().any(|allowance| allowance.covers(found.diagnostic.code, line))
        });
        all.append(&mut own);
    }
    all
}

/// As [`lint_all`] without the rules before, and without what only the engine can confirm.
#[must_use]
pub fn lint_rules(set: &RuleSet, catalog: Option<&Catalog>) -> Diagnostics {
    let all = lint_all(set, Against { catalog, previous: None });
    let sure = all.into_iter().filter(|found| found.ask.as_ref().is_none_or(|ask| !ask.needed));
    Diagnostics(sure.map(|found| found.diagnostic).collect())
}

/// A service as the table would see it.
#[derive(Debug)]
struct Picture {
    service: Arc<ServiceSnapshot>,
    instances: Vec<Arc<Instance>>,
}

fn picture(file: &RuleFile, catalog: Option<&Catalog>) -> Option<Picture> {
    let instances = catalog?.get(&file.service.value)?.clone();
    let service = ServiceSnapshot::build(file.service.value.clone(), 0, instances, &mut LiveSet::default(), Millis(0));
    let instances = service.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.instance)).collect();
    Some(Picture { service, instances })
}

/// What a lint reads, and where it reports.
pub(super) struct Findings<'a> {
    file: &'a RuleFile,
    catalog: Option<&'a Catalog>,
    previous: Option<&'a RuleSet>,
    picture: Option<&'a Picture>,
    lint: &'static Lint,
    prover: Prover,
    out: &'a mut Vec<Finding>,
}

impl<'a> Findings<'a> {
    /// Adds a finding, suspected unless said otherwise.
    fn report(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) -> Reported<'_> {
        let mut diagnostic = Diagnostic::error(self.lint.code, &self.file.source, span, message).label(label);
        diagnostic.severity = self.lint.severity;
        diagnostic.certainty = Some(Certainty::Suspected);
        self.out.push(Finding { diagnostic, ask: None });
        Reported(self.out)
    }

    /// Where a key of the file's top stands.
    fn key(&self, name: &str) -> Span {
        let root = yaml::parse(&self.file.source, &mut Diagnostics::default());
        let pairs = root.as_ref().and_then(|root| root.map()).unwrap_or(&[]);
        let key = pairs.iter().find(|(key, _)| key.text() == Some(name));
        key.map_or(self.file.service.span, |(key, _)| key.span)
    }

    /// The service's instances; none when there is no catalog or the catalog lacks the service.
    fn instances(&self) -> &'a [Arc<Instance>] {
        self.picture.map_or(&[], |picture| &picture.instances)
    }

    /// The members of a pool, lanes kept apart: places in [`Findings::instances`].
    fn members(&self, pool: usize) -> Vec<usize> {
        let select = &self.file.pools[pool].select;
        let mut members = self.selected(select);
        if let Some(lanes) = &self.file.lanes {
            let mut mentioned = false;
            select.fields(&mut |field| mentioned |= matches!(field, Field::Label(label) if *label == lanes.label));
            members.retain(|at| {
                let lane = self.instances()[*at].labels.value(&lanes.label);
                mentioned || lane.is_none_or(|lane| lanes.base.iter().any(|base| &**base == lane))
            });
        }
        members
    }

    /// Whom an expression selects, by the engine's own selector.
    fn selected(&self, select: &Expr) -> Vec<usize> {
        let Some(picture) = self.picture else { return Vec::new() };
        let chosen = Selector::compile(select).map(|selector| selector.select(&picture.service));
        chosen.map_or(Vec::new(), |chosen| chosen.iter().map(|at| at as usize).collect())
    }
}

/// The finding that was just added.
struct Reported<'o>(&'o mut Vec<Finding>);

impl Reported<'_> {
    fn with(self, change: impl FnOnce(&mut Finding)) -> Self {
        if let Some(found) = self.0.last_mut() {
            change(found);
        }
        self
    }

    fn certainty(self, certainty: Certainty) -> Self {
        self.with(|found| found.diagnostic.certainty = Some(certainty))
    }

    fn help(self, help: &str) -> Self {
        self.with(|found| found.diagnostic.help = Some(help.to_owned()))
    }

    fn ask(self, ask: Option<Ask>) -> Self {
        self.with(|found| found.ask = ask)
    }

    /// Without a request to show it by, it is none.
    fn ask_or_drop(self, ask: Option<Ask>) {
        if ask.is_none() {
            self.0.pop();
        } else {
            self.ask(ask);
        }
    }
}

fn unknown_code(found: &mut Findings<'_>) {
    for allowance in allow::read(&found.file.source) {
        for (code, span) in allowance.codes {
            if LINTS.iter().any(|lint| lint.code == code) {
                continue;
            }
            let label = match nearest(&code, LINTS.iter().map(|lint| lint.code)) {
                _ if code.starts_with(['E', 'e']) => "errors cannot be allowed".to_owned(),
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/LINT.md lists the codes".to_owned(),
            };
            found.report(span, format!("there is no lint `{code}`"), label).certainty(Certainty::Proven);
        }
    }
}
