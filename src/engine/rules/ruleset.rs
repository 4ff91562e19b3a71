//! Rule files as written: order, names and spans kept. `route` compiles it into a router (as used).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::template::Template;
use crate::engine::diagnostic::{Source, Span, Spanned};
use crate::engine::expr::ast::{Expr, Field};
use crate::engine::label::Text;
use crate::engine::policy::{Balance, Check, Eject, Hedge, Locality, Min, Overload, Panic, Retry, SlowStart, Timeouts};
use crate::engine::upstream::Upstream;

/// The service of a file that is for every service of the catalog that no file names.
pub const ANY_SERVICE: &str = "*";
/// Where such a file's hosts take the service's name.
pub const SERVICE_PLACE: &str = "{service}";

impl RuleFile {
    /// Whether it is for every service that no file names.
    #[must_use]
    pub fn is_for_any_service(&self) -> bool {
        &*self.service.value == ANY_SERVICE
    }
}

/// All rule files that are in force together, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// One entry a file.
    pub files: Vec<Arc<RuleFile>>,
}

/// One file: one service.
#[derive(Clone, Debug)]
pub struct RuleFile {
    /// Name and text.
    pub source: Arc<Source>,
    /// The catalog's service name. `*`: every service that no file names.
    pub service: Spanned<Text>,
    /// Host patterns; empty: any host.
    pub hosts: Vec<Spanned<HostPattern>>,
    /// Path prefixes by segment; never empty (default `/`). No trailing slash but for `/` itself.
    pub paths: Vec<Spanned<Text>>,
    /// Named subsets, in written order.
    pub pools: Vec<PoolSpec>,
    /// Lane isolation.
    pub lanes: Option<Lanes>,
    /// Locality preference; `None`: level 0 for everybody.
    pub locality: Option<Locality>,
    /// Request labels, in written order.
    pub labels: Vec<RequestLabel>,
    /// What is set on the way to the instance.
    pub propagate: Vec<Propagate>,
    /// Who may send control headers; `None`: everybody.
    pub trusted: Option<Vec<IpNet>>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// The file's last resort; also when no rule matched.
    pub fallback: Option<Spanned<Else>>,
    /// Policies for all rules.
    pub policies: Policies,
    /// Passive ejection; `None`: the defaults.
    pub eject: Option<Eject>,
    /// What the service and its instances carry at once.
    pub overload: Option<Overload>,
    /// Active check; `None`: none.
    pub check: Option<Check>,
    /// Slow start.
    pub slow_start: SlowStart,
    /// How instances are spoken to; `None`: by their labels.
    pub upstream: Option<Upstream>,
    /// The cases beside the rules, in written order.
    pub tests: Vec<TestCase>,
}

/// `shop.example.com` or `*.shop.example.com`; lower case, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(Text),
    /// One or more labels in front of this suffix (stored without `*.`).
    Wildcard(Text),
}

/// A named subset of the instances.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Its name.
    pub name: Spanned<Text>,
    /// Who belongs to it.
    pub select: Expr,
    /// Minimum of routable endpoints; a preference.
    pub min: Min,
    /// Statuses that may take traffic: (passing, warning). Default both.
    pub accept: (bool, bool),
    /// What to do when nobody is routable and every fallback was tried. Default: nothing (503 by `else`).
    pub panic: Option<Panic>,
    /// Overrides the file's or rule's algorithm.
    pub balance: Option<Balance>,
    /// Explicit cap on ejection, parts per million.
    pub max_ejection_percent: Option<u32>,
    /// Explicit floor of endpoints kept.
    pub min_routable: Option<u32>,
    /// Written as a map of equalities.
    pub from_map: bool,
}

/// `lanes: {label: lane, base: [base]}`.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// The instance label that names the lane.
    pub label: Text,
    /// Values that mean "no lane of its own".
    pub base: Vec<Text>,
}

/// `lane: [header.x-lane, cookie.lane, "base"]`.
#[derive(Clone, Debug)]
pub struct RequestLabel {
    /// Its name, read as `label.NAME`.
    pub name: Spanned<Text>,
    /// First present and non-empty wins.
    pub sources: Vec<LabelSource>,
}

/// Where a request label's value comes from.
#[derive(Clone, Debug)]
pub enum LabelSource {
    /// A field of the request.
    Field(Field),
    /// A fixed value, the last one.
    Fixed(Text),
}

/// `propagate: {label: lane, header: x-lane, baggage: lane}`.
#[derive(Clone, Debug)]
pub struct Propagate {
    /// The request label.
    pub label: Text,
    /// The header that carries it to the instance.
    pub header: Option<http::HeaderName>,
    /// The W3C baggage member that carries it.
    pub baggage: Option<Text>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique in its file.
    pub name: Spanned<Text>,
    /// The whole rule's place.
    pub span: Span,
    /// `None`: always.
    pub when: Option<Expr>,
    /// What it does.
    pub action: Action,
    /// What its hashes are salted with, `percent(…)` included. Default: the rule's name.
    pub salt: Text,
    /// The rule's last resort.
    pub fallback: Option<Spanned<Else>>,
    /// Policies in place of the file's: an object given here replaces the file's whole.
    pub policies: Policies,
}

/// Policies that stand at a file's top or in a rule. `None`: not written there.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Time limits.
    pub timeout: Option<Timeouts>,
    /// Retries.
    pub retry: Option<Retry>,
    /// The algorithm.
    pub balance: Option<Balance>,
    /// Second tries beside slow first ones.
    pub hedge: Option<Hedge>,
    /// The parts of the language that change messages, not routes.
    pub message: MessagePolicies,
}

/// `headers`, `rewrite`, `mirror`, `limit`: kept as written.
#[derive(Clone, Debug, Default)]
pub struct MessagePolicies {
    /// Header edits.
    pub headers: Option<HeaderEdits>,
    /// Path and host rewriting.
    pub rewrite: Option<Rewrite>,
    /// Fire-and-forget copies.
    pub mirror: Option<Mirror>,
    /// Local limits.
    pub limit: Option<Limit>,
}

/// `headers: {request: {set, add, remove}, response: {…}}`.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    /// Towards the instance.
    pub request: HeaderEdit,
    /// Towards the client.
    pub response: HeaderEdit,
}

/// One direction's edits, applied in this order: remove, set, add.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdit {
    /// Replaced.
    pub set: Vec<(http::HeaderName, Template)>,
    /// Appended.
    pub add: Vec<(http::HeaderName, Template)>,
    /// Removed.
    pub remove: Vec<http::HeaderName>,
}

/// `rewrite: {path, host}`.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Replaces the beginning of the path: what the rule's `path under …` names, else what the file claims.
    pub path: Option<Text>,
    /// Replaces the Host.
    pub host: Option<Text>,
}

/// `mirror: {to: POOL, share: 1%}`.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The pool that gets copies.
    pub to: Spanned<Text>,
    /// Parts per million.
    pub share: u32,
}

/// `limit: {concurrency, rate, burst, key}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Requests at once; 0: none.
    pub concurrency: u32,
    /// Requests a second, in thousandths; 0: none.
    pub rate_milli: u64,
    /// Requests that may come at once after a pause; 0: a second's worth, at least 1.
    pub burst: u32,
    /// Per value of this field; `None`: one bucket.
    pub key: Option<Field>,
}

/// What a rule does; exactly one.
#[derive(Clone, Debug)]
pub enum Action {
    /// Pools in order of preference; never empty.
    To(Vec<Spanned<Text>>),
    /// Weighted arms.
    Split(Split),
    /// A redirect: status and location.
    Redirect {
        /// 301, 302, 303, 307 or 308. Default 302.
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
        /// Its type; default `text/plain; charset=utf-8`.
        content_type: Text,
    },
}

/// Weighted arms with a key for stickiness.
#[derive(Clone, Debug)]
pub struct Split {
    /// In written order, which is stickiness.
    pub arms: Vec<Arm>,
    /// Percents (weights are parts per million and sum to a million) or integer weights.
    pub percents: bool,
    /// First present and non-empty wins. Empty: each request draws afresh.
    pub key: Vec<Spanned<Field>>,
    /// Whether a cookie is minted when no key is present. Default true; no meaning without `key`.
    pub mint: bool,
    /// Default: the rule's name.
    pub salt: Text,
    /// Default 0.
    pub epoch: u32,
    /// Written as a map, whose order a formatter may change.
    pub from_map: bool,
}

/// One arm of a split.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Pools in order of preference; never empty.
    pub to: Vec<Spanned<Text>>,
    /// Parts per million or an integer weight.
    pub weight: u64,
    /// Where the share is written.
    pub span: Span,
}

/// The explicit last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Else {
    /// Every routable instance of the service.
    Any,
    /// A status from 400 to 599.
    Status(u16),
}

/// One entry of `tests:`: a request and what must become of it.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// The whole entry's place.
    pub span: Span,
    /// As written.
    pub method: http::Method,
    /// `https` when the request line says so, `http` otherwise.
    pub scheme: Text,
    /// Lower case; `None`: the file's first host.
    pub host: Option<Text>,
    /// Path and query.
    pub target: Text,
    /// In written order.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The client's address; default 127.0.0.1.
    pub client: Option<IpAddr>,
    /// Pools that have nobody routable in this case.
    pub down: Vec<Spanned<Text>>,
    /// What must be so; at least one thing.
    pub expect: Expect,
}

/// What a case expects; what is not written is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The rule that decides.
    pub rule: Option<Spanned<Text>>,
    /// The pool that answers.
    pub pool: Option<Spanned<Text>>,
    /// Shares of pools over many draws, parts per million.
    pub share: Vec<(Spanned<Text>, u32)>,
    /// The status of an answer that no instance gives.
    pub status: Option<u16>,
    /// Labels of every instance that may be picked.
    pub labels: Vec<(Text, Spanned<Text>)>,
}
