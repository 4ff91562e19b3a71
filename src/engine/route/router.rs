//! The router: rule files as used. Immutable; hangs off the table.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use super::condition::Condition;
use super::cookie;
use super::expand::Star;
use super::hosts::Hosts;
use super::index::RuleIndex;
use super::message::Messages;
use super::propagate::{Propagated, remove_member};
use super::reader::Fields;
use crate::engine::expr::ast::{Expr, Field};
use crate::engine::label::Text;
use crate::engine::policy::{Balance, Check, Eject, Hedge, Locality, Min, Overload, Panic, Retry, SlowStart, Timeouts};
use crate::engine::rules::{Else, Lanes, RuleFile};
use crate::engine::upstream::Upstream;

/// Index of a file in [`Router::files`].
pub type FileIdx = u32;
/// Index of a rule in [`RouterFile::rules`].
pub type RuleIdx = u32;
/// Index of a pool in [`RouterFile::pools`]; beyond its length, a variant that the table resolved for request labels.
pub type PoolSlot = u32;
/// Index of an arm in [`Split::arms`].
pub type ArmIdx = u32;

/// All rule files, compiled.
#[derive(Debug, Default)]
pub struct Router {
    /// In the order of the rule set; behind them, those that were made of `service: "*"`.
    pub files: Vec<Arc<RouterFile>>,
    /// Who claims which host and path.
    pub(super) hosts: Hosts,
    /// Some file says whom it trusts.
    pub guarded: bool,
    /// How many of the files were made of `service: "*"`.
    pub(super) made: usize,
    pub(super) stars: Vec<Star>,
    /// The claims of the files as written.
    pub(super) written_hosts: Arc<Hosts>,
}

/// One rule file, compiled.
#[derive(Debug)]
pub struct RouterFile {
    /// The catalog's service name.
    pub service: Text,
    /// One entry for each way in which a pool is used: rules that use it alike share a slot. The last is `any`.
    pub pools: Vec<RouterPool>,
    /// In written order.
    pub rules: Vec<RouterRule>,
    /// The file's own last resort.
    pub fallback: Option<Else>,
    /// Policies of a request that matched no rule.
    pub policies: Arc<RulePolicies>,
    /// Passive ejection of the service (from this file or from another one of the same service).
    pub eject: Eject,
    /// What the service and its instances carry at once; `None`: no limits.
    pub overload: Option<Overload>,
    /// The active check of the service.
    pub check: Option<Check>,
    /// Slow start of the service.
    pub slow_start: SlowStart,
    /// How the service's instances are spoken to.
    pub upstream: Upstream,
    /// Locality preference; `prefer` is empty when the file has none.
    pub locality: Locality,
    /// Lane isolation.
    pub lanes: Option<Lanes>,
    /// The name of the cookie that a split of this file mints.
    pub cookie: Text,
    /// What its conditions, keys and labels read.
    pub fields: Fields,
    /// Key fields of `hash(KEY)` that a request without a rule may need: those of `any`.
    pub(super) hashed: Vec<u32>,
    /// Some pool balances by latency, so that answers are timed for it.
    pub watches_latency: bool,
    /// Which rules can match at all.
    pub(super) index: RuleIndex,
    /// Request labels that instances are told.
    pub propagate: Vec<Propagated>,
    /// Headers that only a trusted peer may send: what `labels:` reads and `propagate:` sets.
    pub control_headers: Vec<http::HeaderName>,
    /// Cookies that `labels:` reads; as `control_headers`.
    pub control_cookies: Vec<Text>,
    /// Members of the `baggage` header that `propagate:` sets; as `control_headers`.
    pub control_baggage: Vec<Text>,
    /// The file as written.
    pub ruleset: Arc<RuleFile>,
}

/// A pool as rules use it. The same named pool stands in several slots when its uses differ in algorithm or backing.
#[derive(Clone, Debug)]
pub struct RouterPool {
    /// Its name; `any` for the last slot.
    pub name: Text,
    /// Index in the file's `pools`; `None` for `any`.
    pub spec: Option<usize>,
    /// Who belongs to it; `None`: every instance of the service, lanes included.
    pub select: Option<Expr>,
    /// `field == label.NAME` terms of `select`, at most two, in written order: the table keeps a variant of the pool
    /// for each combination of values that the catalog holds. The slot itself then stands for "no such value".
    pub refers: Vec<(Field, Text)>,
    /// The labels of `refers`, as places in [`Fields::labels`].
    pub(super) labels: Vec<u32>,
    /// Minimum of routable endpoints.
    pub min: Min,
    /// Statuses that may take traffic: (passing, warning).
    pub accept: (bool, bool),
    /// What to do when nobody is routable and every fallback was tried. A backed pool never panics.
    pub panic: Option<Panic>,
    /// The algorithm: the pool's own, else the rule's, else the file's.
    pub balance: Balance,
    /// The field that `hash(KEY)` names: a slot of the file's fields.
    pub key: Option<u32>,
    /// Another pool stands in for it (SEMANTICS.md, *Ejection*).
    pub backed: bool,
    /// Cap on ejection in parts per million: explicit (pool, then `eject`), else 100 % if backed, else 50 %.
    pub max_ejection_percent: u32,
    /// Endpoints kept whatever their health: explicit, else 0 if backed, else 1.
    pub min_routable: u32,
}

/// A rule, compiled.
#[derive(Debug)]
pub struct RouterRule {
    /// Its name.
    pub name: Text,
    /// When it applies.
    pub condition: Condition,
    /// What it does.
    pub action: Action,
    /// The rule's own last resort.
    pub fallback: Option<Else>,
    /// Policies in force: a rule's object replaces the file's whole.
    pub policies: Arc<RulePolicies>,
    /// The pool that nothing backs, if it has `panic`.
    pub panic: Option<(PoolSlot, Panic)>,
    /// Its pools that name request labels.
    pub(super) labelled: Vec<PoolSlot>,
    /// Key fields of `hash(KEY)` of the pools that it may come to, each once.
    pub(super) hashed: Vec<u32>,
}

/// What a rule does.
#[derive(Debug)]
pub enum Action {
    /// Pools in order of preference.
    To(Vec<PoolSlot>),
    /// Weighted arms.
    Split(Split),
    /// A redirect: status and location.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The Location.
        location: Text,
    },
    /// A fixed answer.
    Respond {
        /// The status.
        status: u16,
        /// The body.
        body: Text,
        /// Its type.
        content_type: Text,
    },
}

/// Weighted arms, with a key or without one.
#[derive(Debug)]
pub struct Split {
    /// In written order.
    pub arms: Vec<Arm>,
    /// The sum of the arms' weights; above 0.
    pub total: u64,
    /// Field slots, the first present and non-empty wins. Empty: each request draws afresh.
    pub key: Vec<u32>,
    /// A cookie is minted when no key is present.
    pub mint: bool,
    /// What separates this split from others.
    pub salt: Text,
    /// Raised to recall everybody.
    pub epoch: u32,
}

/// One arm.
#[derive(Debug)]
pub struct Arm {
    /// The names of its pools, joined by commas; the second hash appends it.
    pub name: Text,
    /// Pools in order of preference.
    pub to: Vec<PoolSlot>,
    /// Its part of [`Split::total`].
    pub weight: u64,
}

/// Policies in force for a rule.
#[derive(Clone, Debug, Default)]
pub struct RulePolicies {
    /// Time limits.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// The algorithm of pools that name none; already resolved into [`RouterPool::balance`].
    pub balance: Balance,
    /// Second tries beside slow first ones; `None`: none.
    pub hedge: Option<Hedge>,
    /// Where `message.limit` stands: the rule's name, empty at the file's top.
    pub limit_of: Text,
    /// The field slot that `message.limit` counts by.
    pub limit_key: Option<u32>,
    /// Header edits, rewriting, limits.
    pub message: Messages,
}

impl Router {
    /// Whether a peer may send control headers to the file that claims this host and path. `peer` is the TCP peer or
    /// the PROXY protocol's source, never what X-Forwarded-For says. True where no file claims it.
    #[must_use]
    pub fn trusts(&self, host: &str, path: &str, peer: IpAddr) -> bool {
        !self.guarded || self.file(host, path).is_none_or(|file| self.files[file as usize].trusts(peer))
    }

    /// The file that claims a normalised host and path.
    #[must_use]
    pub fn file(&self, host: &str, path: &str) -> Option<FileIdx> {
        self.hosts.find(host, path).map(|claim| claim.file)
    }
}

impl RouterRule {
    /// The pools of its list, or of all its arms, in order, and that of its mirror; one may come twice.
    pub fn pools(&self) -> impl Iterator<Item = PoolSlot> + '_ {
        let mirror = self.policies.message.mirror.as_ref().map(|mirror| &mirror.pool);
        let (list, arms, mirror) = match &self.action {
            Action::To(list) => (&list[..], &[][..], mirror),
            Action::Split(split) => (&[][..], &split.arms[..], mirror),
            Action::Redirect { .. } | Action::Respond { .. } => (&[][..], &[][..], None),
        };
        list.iter().chain(arms.iter().flat_map(|arm| &arm.to)).chain(mirror).copied()
    }
}

impl RouterFile {
    /// The slot of `any`: every routable instance of the service.
    #[must_use]
    pub fn any(&self) -> PoolSlot {
        (self.pools.len() - 1) as PoolSlot
    }

    /// Whether a peer may send control headers. Without `trusted:` everybody may.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.ruleset.trusted.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&peer)))
    }

    /// Takes out of a head what instances are not to see: the stickiness cookie and, from a peer who is not trusted, all
    /// that only a trusted one may send.
    pub fn strip(&self, headers: &mut HeaderMap, peer: IpAddr) {
        if self.ruleset.trusted.is_none() || self.trusts(peer) {
            return cookie::strip_all(headers, |name| name == self.cookie.as_bytes());
        }
        cookie::strip_all(headers, |name| {
            name == self.cookie.as_bytes() || self.control_cookies.iter().any(|cookie| name == cookie.as_bytes())
        });
        self.control_headers.iter().for_each(|name| {
            headers.remove(name);
        });
        self.control_baggage.iter().for_each(|member| remove_member(headers, member));
    }

    /// The name of an arm or pool as people and metrics see it.
    #[must_use]
    pub fn pool_name(&self, pool: PoolSlot) -> &Text {
        &self.pools[(pool as usize).min(self.pools.len() - 1)].name
    }
}
