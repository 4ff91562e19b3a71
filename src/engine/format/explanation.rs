//! An explanation: everything that made one request go where it goes. JSON by serde, text by [`Explanation::text`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::LimitsNote;
use crate::engine::policy::{Balance, Eject, Retry, Timeouts};

/// How one request is decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked.
    pub request: RequestNote,
    /// Where it goes.
    pub result: ResultNote,
    /// The file that claims host and path; `None`: no file does.
    pub file: Option<FileNote>,
    /// The request's labels.
    pub labels: Vec<LabelNote>,
    /// Every rule in written order.
    pub rules: Vec<RuleNote>,
    /// The split of the rule that matched.
    pub split: Option<SplitNote>,
    /// The order of resort as it was walked.
    pub resort: Vec<ResortNote>,
    /// The pools of the rule that matched, in the order in which this request comes to them.
    pub pools: Vec<PoolNote>,
    /// The endpoint.
    pub pick: Option<PickNote>,
    /// Policies in force for this request.
    pub policies: Option<PoliciesNote>,
    /// What is changed in the messages; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageNote>,
    /// The table's generation.
    pub generation: u64,
    /// The request's luck.
    pub draw: String,
}

/// The request as the rules see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestNote {
    /// As sent.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Normalised.
    pub host: String,
    /// Normalised, with the query.
    pub path: String,
    /// The client's address.
    pub client: String,
    /// Whether it may send control headers.
    pub trusted: bool,
}

/// What comes of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ResultNote {
    /// In a word.
    pub outcome: Kind,
    /// The service.
    pub service: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// The arm.
    pub arm: Option<String>,
    /// Another arm took it, because its own has nobody routable.
    pub rerouted: bool,
    /// The pool.
    pub pool: Option<String>,
    /// The instance's id.
    pub instance: Option<String>,
    /// Where it listens.
    pub address: Option<String>,
    /// Rank of the locality level; 0 is nearest.
    pub level: Option<u8>,
    /// The status, unless an instance answers.
    pub status: Option<u16>,
    /// Why it is refused; a redirect's location.
    pub detail: Option<String>,
    /// The cookie that the answer sets.
    pub set_cookie: Option<String>,
}

/// What becomes of a request, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An instance gets it.
    Routed,
    /// Its rule redirects.
    Redirect,
    /// Its rule answers.
    Respond,
    /// Nobody gets it.
    #[default]
    Refused,
}

/// The file that was chosen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileNote {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// What it claims.
    #[serde(flatten)]
    pub claim: ClaimNote,
    /// The catalog's index of the service; `None`: the catalog does not know it.
    pub catalog_index: Option<u64>,
    /// Instances in the catalog.
    pub instances: usize,
}

/// A (host, path) pair that matched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClaimNote {
    /// The host pattern; `None`: any host.
    pub host: Option<String>,
    /// The path prefix.
    pub path: String,
}

/// A request label.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabelNote {
    /// Its name.
    pub name: String,
    /// `None`: the request has none.
    pub value: Option<String>,
}

/// A rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleNote {
    /// Its name.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// Its condition as written; `None`: always.
    pub when: Option<String>,
    /// What came of it.
    pub verdict: Verdict,
    /// The terms that failed: one, or the alternatives of an `or`.
    pub failed: Vec<FailedTerm>,
}

/// What came of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The first that matched.
    Matched,
    /// Its condition does not hold.
    Failed,
    /// One before it matched.
    NotTried,
}

/// A term that does not hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedTerm {
    /// As written.
    pub text: String,
    /// Its line.
    pub line: usize,
    /// Its column.
    pub column: usize,
    /// What it reads.
    pub field: Option<String>,
    /// What the request has; `None`: it is missing.
    pub actual: Option<String>,
    /// What one might not expect.
    pub note: Option<String>,
}

/// A split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SplitNote {
    /// Where the hash comes from.
    pub key: String,
    /// The key's value.
    pub value: Option<String>,
    /// What separates it from other splits.
    pub salt: String,
    /// Raised to recall everybody.
    pub epoch: u32,
    /// In hexadecimal.
    pub hash: String,
    /// Where the hash falls, as a share of the whole.
    pub point: String,
    /// In written order.
    pub arms: Vec<ArmNote>,
    /// In the order in which they take this request.
    pub order: Vec<String>,
}

/// An arm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArmNote {
    /// Its name.
    pub name: String,
    /// As written; parts per million for percents.
    pub weight: u64,
    /// Of the whole.
    pub share: String,
}

/// One step of the order of resort.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResortNote {
    /// The step: `preferred`, `at_least_one`, `panic`, `rule_else`, `file_else`, `refuse`.
    pub step: String,
    /// The pool, where the step is about one.
    pub pool: Option<String>,
    /// Whether it was taken.
    pub taken: bool,
    /// Why, or why not.
    pub why: String,
}

/// A pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolNote {
    /// Its name.
    pub name: String,
    /// Its selector; `None`: every instance.
    pub select: Option<String>,
    /// Values of the request labels that it was looked up by.
    pub variant: Vec<String>,
    /// Instances that the selector names.
    pub catalog: u32,
    /// Routable ones.
    pub routable: u32,
    /// Routable ones that it wants.
    pub min: u32,
    /// Another pool stands in for it.
    pub backed: bool,
    /// The algorithm.
    pub balance: Balance,
    /// Cap on ejection, parts per million.
    pub max_ejection_percent: u32,
    /// Endpoints kept whatever their health.
    pub min_routable: u32,
    /// Nearest first.
    pub levels: Vec<LevelNote>,
    /// Who is named and takes no traffic.
    pub left_out: Vec<LeftOutNote>,
}

/// A locality level.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LevelNote {
    /// 0 is nearest.
    pub rank: u8,
    /// Its part of the traffic, percent.
    pub load: u8,
    /// It may take more in so many milliseconds: what came back waits for `failback`.
    pub waits: Option<u64>,
    /// Instances of the catalog.
    pub catalog: u32,
    /// Routable ones.
    pub candidates: Vec<CandidateNote>,
}

/// A routable instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CandidateNote {
    /// Its id.
    pub id: String,
    /// Its weight.
    pub weight: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Ejected, but kept by the pool's cap.
    pub eject_refused: bool,
    /// It starts slowly: the chance that it is kept once drawn, parts per million.
    pub slow_start: Option<u32>,
    /// Its moving latency in microseconds, where the pool's algorithm is `ewma`.
    pub cost: Option<u64>,
}

/// An instance that takes no traffic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftOutNote {
    /// Its id.
    pub id: String,
    /// Why, in a few words.
    pub why: String,
    /// The same for programs.
    pub reason: Value,
}

/// The endpoint that was picked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PickNote {
    /// The pool.
    pub pool: String,
    /// Rank of the level.
    pub level: u8,
    /// Levels that were tried, in order.
    pub levels: Vec<u8>,
    /// The two that were compared, if two were.
    pub compared: Option<ComparedNote>,
    /// What a pool with `hash(KEY)` went by; `None`: another algorithm.
    pub key: Option<HashNote>,
    /// Drawn, but not taken.
    pub passed_over: Vec<PassedOverNote>,
    /// Whatever its health.
    pub panic: bool,
    /// By `round_robin`: a worker's own turn decides, which a dry run does not know; it draws by weight.
    #[serde(default)]
    pub turns: bool,
    /// Its id.
    pub instance: String,
}

/// The key of `hash(KEY)`, and where it fell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HashNote {
    /// The field, as written.
    pub field: String,
    /// Its value; `None`: the request has none, so that `least` chose.
    pub value: Option<String>,
    /// The value's hash, in hexadecimal.
    pub hash: Option<String>,
    /// The entry of the table that the hash fell at, of as many as there are.
    pub entry: Option<(usize, usize)>,
    /// How often the hash was taken again because an endpoint was passed over; beyond 8 the table was walked.
    pub again: u32,
}

/// An endpoint that was drawn and does not get the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassedOverNote {
    /// Its id.
    pub id: String,
    /// Why.
    pub why: String,
}

/// Two endpoints compared by requests in flight for their weight.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComparedNote {
    /// Drawn first.
    pub a: String,
    /// The other.
    pub b: String,
    /// Of both.
    pub in_flight: [u32; 2],
    /// Moving latencies of both in microseconds; `None`: they do not count.
    pub costs: Option<[u64; 2]>,
    /// The better.
    pub chosen: String,
}

/// Policies in force. Durations are milliseconds, 0 is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoliciesNote {
    /// Time limits.
    pub timeout: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// Ejection.
    pub eject: Eject,
    /// Label keys of locality, widest first.
    pub prefer: Vec<String>,
    /// Over-provisioning in thousandths.
    pub spill: u32,
    /// How long a level must be well again before it takes more.
    pub failback: u64,
    /// Limits, hedging, overload.
    #[serde(flatten)]
    pub limits: LimitsNote,
}

/// What a rule changes in the messages of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageNote {
    /// The path and query that the instance is asked for; `None`: the client's.
    pub target: Option<String>,
    /// The Host that the instance is asked for; `None`: the client's.
    pub host: Option<String>,
    /// Request labels that the instance is told.
    #[serde(default)]
    pub carried: Vec<CarriedNote>,
    /// Header edits towards the instance, in the order in which they are made.
    pub request: Vec<EditNote>,
    /// Header edits towards the client.
    pub response: Vec<EditNote>,
    /// Copies for another pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorNote>,
}

/// A request label that the instance is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedNote {
    /// The header that carries it.
    pub header: Option<String>,
    /// Its value there.
    pub value: String,
    /// The baggage member that carries it, with the value as it stands there.
    pub baggage: Option<String>,
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorNote {
    /// The pool that gets them.
    pub pool: String,
    /// How many requests are copied, parts per million.
    pub share: u32,
    /// Whether the request with this luck is.
    pub copied: bool,
}

/// A header edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditNote {
    /// What is done.
    pub kind: EditKind,
    /// The header.
    pub name: String,
    /// The value, filled in; `None` for `remove`.
    pub value: Option<String>,
}

/// What a header edit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditKind {
    /// Takes it away.
    Remove,
    /// Puts the value in place of what is there.
    Set,
    /// Puts the value beside what is there.
    Add,
}
