//! What a request gets, decided without a pick. Small and `Clone`: `forward` keeps it for retries.

use serde::Serialize;
use smallvec::SmallVec;

use super::router::{ArmIdx, FileIdx, PoolSlot, RuleIdx};
use crate::engine::table::Pool;

/// The decision for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The file that claims host and path.
    pub file: Option<FileIdx>,
    /// The rule that matched.
    pub rule: Option<RuleIdx>,
    /// The arm that the outcome's pool belongs to.
    pub arm: Option<ArmIdx>,
    /// The request's own arm had nobody routable, so another one took it.
    pub rerouted: bool,
    /// What to do.
    pub outcome: Outcome,
    /// The cookie to set on the answer.
    pub mint: Option<Mint>,
    /// The hash of the key that chose the arm. `None`: there is no split, or luck chose.
    pub key: Option<u64>,
    /// The split's arms in the order in which they take this request: its own, then by the second hash.
    /// Arms of weight 0 are not in it. Empty without a split.
    pub(super) arms: SmallVec<[u16; 4]>,
    /// Pools with request labels: the slot as compiled, and the variant for this request.
    pub(super) variants: SmallVec<[(PoolSlot, Option<PoolSlot>); 2]>,
    /// Hashes of the key fields that pools with `hash(KEY)` go by; a field that the request lacks is not in it.
    pub(super) hashes: SmallVec<[(u32, u64); 1]>,
}

impl Decision {
    /// The hash that a pool with `hash(KEY)` goes by; `None`: the request does not have the key, or the pool needs none.
    #[must_use]
    pub fn hash_of(&self, pool: &Pool) -> Option<u64> {
        let key = pool.key?;
        self.hashes.iter().find(|(field, _)| *field == key).map(|(_, hash)| *hash)
    }
}

impl Decision {
    /// The slot that stands for a pool in this request; `None`: a combination of request labels that nobody has.
    #[must_use]
    pub fn variant(&self, pool: PoolSlot) -> Option<PoolSlot> {
        self.variants.iter().find(|(slot, _)| *slot == pool).map_or(Some(pool), |(_, variant)| *variant)
    }
}

/// What to do with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Pick from this pool.
    Pool(Choice),
    /// Answer with the rule's redirect.
    Redirect,
    /// Answer with the rule's text.
    Respond,
    /// Answer with this status.
    Refuse {
        /// The status.
        status: u16,
        /// Why.
        detail: Detail,
    },
}

/// A pool, and how it came to be chosen. Opaque enough to continue from: see `next_choice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// The pool, or a variant of it.
    pub slot: PoolSlot,
    /// The pool as compiled: an index into the file's `pools`, for its name and policies.
    pub pool: PoolSlot,
    /// Which step of the order of resort gave it.
    pub step: Step,
    /// Place in the order of arms; 0 without a split.
    pub(super) turn: u16,
    /// Place in that arm's list.
    pub(super) place: u16,
}

impl Choice {
    /// Whether pools of the list or of earlier arms stand before it, passed over for want of routable endpoints.
    #[must_use]
    pub fn passes_over(&self) -> bool {
        self.step != Step::Preferred || self.turn > 0 || self.place > 0
    }
}

/// The order of resort (RULES.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// (1) A pool of the list or arm with at least `min` routable.
    Preferred,
    /// (2) The same with at least one.
    AtLeastOne,
    /// (3) The last pool's panic: any member, whatever its health.
    Panic,
    /// (4) The rule's `else: any`.
    RuleElse,
    /// (5) The file's `else: any`.
    FileElse,
}

impl Step {
    /// The word for logs and `explain`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Preferred => "preferred",
            Self::AtLeastOne => "at_least_one",
            Self::Panic => "panic",
            Self::RuleElse => "rule_else",
            Self::FileElse => "file_else",
        }
    }
}

/// Why the engine refuses a request: the words of SEMANTICS.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// No file claims this host and path.
    NoRoute,
    /// No rule matched.
    NoRule,
    /// Nobody is routable.
    NoRoutableInstance,
    /// The rule answers by itself, and a connection that is passed on has nobody who could read it.
    MethodRefused,
}

impl Detail {
    /// The word for logs, metrics and `x-pointsman-error`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoRule => "no_rule",
            Self::NoRoutableInstance => "no_routable_instance",
            Self::MethodRefused => "method_refused",
        }
    }
}

/// A new stickiness cookie's value. The name is the file's `cookie`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The split's epoch.
    pub epoch: u32,
    /// 26 base32 characters (RFC 4648, lower case).
    pub id: [u8; 26],
}
