//! What may vanish from one service, and when. Pure: every decision is a function of answers and time.
//!
//! An instance missing from a *trusted* answer goes at once. One missing from an answer that we have reason to doubt is
//! *held*: it stays in what is published until two equal readings confirm a small loss, the hold's time is over, it
//! comes back, or an operator accepts. (CATALOGS.md E1, E2, E3.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::engine::time::Millis;

/// The instances of one identity: one, or one for each address of its host name.
pub type Group = Vec<Arc<Instance>>;

/// Why an answer's losses are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// What is missing comes from the copy on disk, and the catalog has not named it since.
    Warm,
    /// The first answer after an error, a reset, or a change of address or token.
    Broken,
    /// The catalog's index went down: it was restored or restarted.
    IndexFell,
    /// No leader was known, or the answer was too stale.
    NoLeader,
    /// Some element could not be read at all, or the list was `null`.
    Flawed,
    /// A loss without a new index, or an answer that says it was filtered: the token may read less than before.
    Permission,
    /// Too much of the whole catalog would go at once.
    Mass,
}

impl Doubt {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Warm => "known from the copy on disk only",
            Self::Broken => "missing from the first answer after an interruption",
            Self::IndexFell => "missing after the catalog's index went down (restart or restored snapshot)",
            Self::NoLeader => "missing from an answer given without a leader",
            Self::Flawed => "missing from an answer that was partly unreadable",
            Self::Permission => "missing without any change in the catalog: the token may have lost a permission",
            Self::Mass => "too much of the catalog would go at once",
        }
    }
}

/// One whole answer about one service.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The catalog's index.
    pub index: u64,
    /// What it names, by identity.
    pub groups: BTreeMap<Text, Group>,
    /// Identities that it names but whose content cannot be used now (bad port, unresolvable host): they stay as they are.
    pub kept: BTreeSet<Text>,
    /// How far it can be believed.
    pub evidence: Evidence,
}

/// How far an answer can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Read with default (or stronger) consistency.
    pub consistent: bool,
    /// A leader was known and its last contact recent enough.
    pub leader_known: bool,
    /// The answer says that permissions filtered it.
    pub filtered: bool,
    /// `null`, or an element that could not be read at all.
    pub flawed: bool,
    /// A list of services begun after this answer still names the service.
    pub still_listed: bool,
    /// A list of services begun after this answer names nothing at all, and did before.
    pub nothing_listed: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            consistent: true,
            leader_known: true,
            filtered: false,
            flawed: false,
            still_listed: false,
            nothing_listed: false,
        }
    }
}

/// Times of holding, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct HoldPolicy {
    /// An untrusted loss is accepted after this; 0: never.
    pub hold_max: u64,
    /// The same for [`Doubt::Permission`].
    pub hold_acl: u64,
    /// Between two equal readings that confirm a small loss.
    pub confirm_after: u64,
}

impl Default for HoldPolicy {
    fn default() -> Self {
        Self { hold_max: 60_000, hold_acl: 0, confirm_after: 2_000 }
    }
}

/// What a judgement did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Whether what is published may differ.
    pub changed: bool,
    /// Removed at once, because the answer was trusted.
    pub removed: Vec<(Text, Group)>,
    /// Newly held, and why.
    pub held: Option<(usize, Doubt)>,
    /// Held ones that two equal readings let go.
    pub confirmed: usize,
    /// Held ones whose time was over.
    pub expired: usize,
    /// Held ones that came back.
    pub returned: usize,
}

#[derive(Clone, Debug)]
struct Held {
    group: Group,
    doubt: Doubt,
    since: Millis,
    first: Millis,
}

/// A hold's clock starts again when the watch breaks, but not for ever: after so many times `hold_max` it ends.
const LONGEST_HOLD: u64 = 10;

/// What we believe of one service of one catalog.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    listed: BTreeMap<Text, Group>,
    held: BTreeMap<Text, Held>,
    index: u64,
    broken: Option<Doubt>,
    answered: Option<Millis>,
    same_since: Option<Millis>,
}

impl Keeper {
    /// Judges a whole answer and takes over what can be believed.
    pub fn judge(&mut self, answer: Answer, now: Millis, policy: HoldPolicy) -> Judgement {
        let mut out = Judgement::default();
        let doubt = self.doubt(&answer);
        let content_same = self.listed == answer.groups && answer.kept.is_empty();
        let hidden = self.hidden(&answer);
        let Answer { index, mut groups, kept, evidence } = answer;
        let solid = evidence.consistent && evidence.leader_known && !evidence.filtered && !evidence.flawed;
        self.same_since = match (solid, content_same, self.same_since) {
            (_, true, Some(since)) => Some(since),
            (true, _, _) => Some(now),
            _ => None,
        };
        out.returned = self.take_back(&mut groups, &kept, now);
        for id in kept {
            if let Some(group) = self.listed.get(&id) {
                groups.entry(id).or_insert_with(|| group.clone());
            }
        }
        reuse(&mut groups, &self.listed);
        out.changed = out.returned > 0 || groups != self.listed;
        let before = std::mem::replace(&mut self.listed, groups);
        let lost: Vec<(Text, Group)> = before.into_iter().filter(|(id, _)| !self.listed.contains_key(id)).collect();
        match doubt {
            Some(doubt) if !lost.is_empty() => {
                out.held = Some((lost.len(), doubt));
                for (id, group) in lost {
                    self.hold(id, group, doubt, now);
                }
            }
            _ => out.removed = lost,
        }
        if hidden {
            self.know_hidden(&mut out);
        }
        (self.index, self.broken, self.answered) = (index, None, Some(now));
        self.release(now, policy, &mut out);
        out.changed |= out.confirmed + out.expired > 0;
        out
    }

    /// Why the losses of this answer would not be believed; `None`: they are (E1).
    fn doubt(&self, answer: &Answer) -> Option<Doubt> {
        let evidence = answer.evidence;
        if let Some(doubt) = self.broken {
            return Some(doubt);
        }
        if self.answered.is_none() {
            return Some(Doubt::Warm);
        }
        if answer.index < self.index {
            return Some(Doubt::IndexFell);
        }
        if evidence.flawed {
            return Some(Doubt::Flawed);
        }
        // The index alone does not tell: it moves with every check, and a lost permission wakes nobody.
        if evidence.filtered || evidence.nothing_listed || answer.index == self.index {
            return Some(Doubt::Permission);
        }
        if evidence.consistent || evidence.leader_known {
            return None;
        }
        let empty = answer.groups.is_empty() && answer.kept.is_empty();
        Some(if empty && evidence.still_listed { Doubt::Permission } else { Doubt::NoLeader })
    }

    /// Whether the service is empty although the list of services, read since, still names it: the second sign of a lost
    /// permission (E3). A broken watch and a lower index are signs of something else.
    fn hidden(&self, answer: &Answer) -> bool {
        let empty = answer.groups.is_empty() && answer.kept.is_empty();
        empty && answer.evidence.still_listed && self.broken.is_none() && answer.index >= self.index
    }

    /// What was held for want of a leader is hidden from us. The list comes after the answer, so this is often known only
    /// at a later one.
    fn know_hidden(&mut self, out: &mut Judgement) {
        let unsure: Vec<&mut Held> = self.held.values_mut().filter(|held| held.doubt == Doubt::NoLeader).collect();
        if !unsure.is_empty() {
            out.held = Some((unsure.len(), Doubt::Permission));
            unsure.into_iter().for_each(|held| held.doubt = Doubt::Permission);
        }
    }

    /// Held ones that the answer names again. When a permission comes back, what is still missing is an ordinary doubt.
    fn take_back(&mut self, groups: &mut BTreeMap<Text, Group>, kept: &BTreeSet<Text>, now: Millis) -> usize {
        let back: Vec<Text> =
            self.held.keys().filter(|id| groups.contains_key(*id) || kept.contains(*id)).cloned().collect();
        let mut permission = false;
        for id in &back {
            if let Some(held) = self.held.remove(id) {
                permission |= held.doubt == Doubt::Permission;
                groups.entry(id.clone()).or_insert(held.group);
            }
        }
        if permission {
            for held in self.held.values_mut().filter(|held| held.doubt == Doubt::Permission) {
                (held.doubt, held.since, held.first) = (Doubt::Broken, now, now);
            }
        }
        back.len()
    }

    /// Lets go what two equal readings confirm, and what was held long enough.
    fn release(&mut self, now: Millis, policy: HoldPolicy, out: &mut Judgement) {
        let confirmed = self.same_since.is_some_and(|since| now.since(since) >= policy.confirm_after);
        if confirmed && self.small_loss() {
            let before = self.held.len();
            self.held.retain(|_, held| !confirmable(held.doubt));
            out.confirmed = before - self.held.len();
        }
        let before = self.held.len();
        self.held.retain(|_, held| held.due(policy).is_none_or(|due| now < due));
        out.expired = before - self.held.len();
    }

    /// Whether the confirmable holds are less than half of the service.
    fn small_loss(&self) -> bool {
        let lost = self.held.values().filter(|held| confirmable(held.doubt)).count();
        lost > 0 && !self.listed.is_empty() && lost * 2 < self.listed.len() + self.held.len()
    }

    /// When a reading with default consistency would let something held go; `None` when nothing waits for one.
    #[must_use]
    pub fn next_reading(&self, now: Millis, policy: HoldPolicy) -> Option<Millis> {
        let confirm = self.small_loss().then(|| self.same_since.map_or(now, |since| since.plus(policy.confirm_after)));
        let due = self.held.values().filter_map(|held| held.due(policy)).min();
        confirm.into_iter().chain(due).min()
    }

    /// Something is kept out of the catalog's own words.
    pub fn hold(&mut self, id: Text, group: Group, doubt: Doubt, now: Millis) {
        if !self.listed.contains_key(&id) {
            self.held.entry(id).or_insert(Held { group, doubt, since: now, first: now });
        }
    }

    /// The watch was interrupted: the next answer's losses are doubted, and the clocks of the holds start again.
    pub fn interrupted(&mut self, doubt: Doubt, now: Millis) {
        if self.answered.is_some() {
            self.broken.get_or_insert(doubt);
        }
        self.same_since = None;
        for held in self.held.values_mut() {
            held.since = now;
        }
    }

    /// Takes over the copy on disk, unless the catalog has answered already. Returns whether it did.
    pub fn warm(&mut self, index: u64, groups: BTreeMap<Text, Group>) -> bool {
        let take = self.answered.is_none() && self.listed.is_empty();
        if take {
            (self.listed, self.index) = (groups, index);
        }
        take
    }

    /// New addresses of host names, for identities that are listed or held. Returns whether anything changed.
    pub fn readdress(&mut self, groups: &BTreeMap<Text, Group>) -> bool {
        let mut changed = false;
        for (id, group) in groups {
            if let Some(own) = self.listed.get_mut(id)
                && own != group
            {
                own.clone_from(group);
                changed = true;
            }
        }
        changed
    }

    /// Lets go of everything held. Returns how many.
    pub fn accept(&mut self) -> usize {
        std::mem::take(&mut self.held).len()
    }

    /// Drops everything, because the last good answer is older than the operator allows (E6). Returns whether there
    /// was anything.
    pub fn drop_stale(&mut self) -> bool {
        let any = !self.listed.is_empty() || !self.held.is_empty();
        self.listed.clear();
        self.held.clear();
        any
    }

    /// Listed and held.
    pub fn groups(&self) -> impl Iterator<Item = (&Text, &Group)> {
        self.listed.iter().chain(self.held.iter().map(|(id, held)| (id, &held.group)))
    }

    /// How many identities are listed or held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listed.len() + self.held.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are held, and the gravest reason.
    #[must_use]
    pub fn holding(&self) -> Option<(usize, Doubt)> {
        self.held.values().map(|held| held.doubt).max().map(|worst| (self.held.len(), worst))
    }

    /// The index of the last good answer; 0 before the first.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// When the last good answer came.
    #[must_use]
    pub fn answered(&self) -> Option<Millis> {
        self.answered
    }
}

impl Held {
    /// When the hold ends by itself.
    fn due(&self, policy: HoldPolicy) -> Option<Millis> {
        let wait = if self.doubt == Doubt::Permission { policy.hold_acl } else { policy.hold_max };
        (wait > 0).then(|| self.since.plus(wait).min(self.first.plus(wait.saturating_mul(LONGEST_HOLD))))
    }
}

fn confirmable(doubt: Doubt) -> bool {
    !matches!(doubt, Doubt::Permission | Doubt::Mass)
}

/// Keeps the old `Arc` of an instance that did not change, so that those who compare pointers see it.
fn reuse(groups: &mut BTreeMap<Text, Group>, old: &BTreeMap<Text, Group>) {
    for (id, group) in groups.iter_mut() {
        let Some(before) = old.get(id) else { continue };
        for instance in group.iter_mut() {
            if let Some(same) = before.iter().find(|one| *one == instance) {
                *instance = Arc::clone(same);
            }
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
