//! Following one service: the loop of CATALOGS.md 2.3.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::api::{self, Head, Query};
use super::ask::{Asker, Failed};
use super::entry::{self, Entries, Origin};
use super::position::{Answered, Asked, Meaning, Position, SLOW};
use super::resolve::names_of;
use super::services::{Listed, read_again};
use super::subscription::{Place, SPARE, Subscription, about};
use crate::catalog::http::{Reply, body};
use crate::catalog::status::{Cell, Followed, ServiceFigures};
use crate::catalog::watch::backoff::Failure;
use crate::catalog::watch::desk::Ruling;
use crate::catalog::watch::keeper::{Answer, Doubt, Evidence};
use crate::catalog::{Note, consul::Settings};
use crate::engine::label::Text;
use crate::engine::time::Millis;

/// Follows a service until the task is dropped.
pub(super) async fn follow(sub: Arc<Subscription>, service: Text) {
    let mut watch = Watch::new(sub, service);
    {
        let starting = Arc::clone(&watch.sub);
        let _first = starting.starting.acquire().await;
        let _ = watch.turn(Turn::Full).await;
    }
    loop {
        let turn = watch.choose().await;
        watch.turn(turn).await;
    }
}

/// One way of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Answer at once, default consistency.
    Full,
    /// Answer at once, any server.
    Quick,
    /// Block on this index for so long.
    Block(NonZeroU64, Duration),
}

impl Turn {
    fn asked(self) -> Asked {
        match self {
            Self::Full => Asked::Full,
            Self::Quick => Asked::Quick,
            Self::Block(..) => Asked::Blocked,
        }
    }
}

struct Watch {
    sub: Arc<Subscription>,
    service: Text,
    asker: Asker,
    figures: Arc<Cell<ServiceFigures>>,
    position: Position,
    epoch: u64,
    /// A reading with default consistency is due then.
    next_reading: Option<Millis>,
    resync: Instant,
    empty_since: Option<Instant>,
    names: BTreeSet<String>,
    drafts: Vec<entry::Draft>,
    slot: Option<Place>,
    rotated: bool,
    listed: tokio::sync::watch::Receiver<Listed>,
    complained: Option<Instant>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.rotated {
            self.sub.rotated.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Watch {
    fn new(sub: Arc<Subscription>, service: Text) -> Self {
        let mut asker = Asker::new(&sub, format!("service {}", service.escape_debug()));
        let resync = Instant::now() + about(sub.settings.resync, &mut asker.draw);
        Self {
            figures: sub.status.service(&sub.name, &service),
            position: Position::default(),
            epoch: sub.client.epoch(),
            next_reading: None,
            resync,
            empty_since: None,
            names: BTreeSet::new(),
            drafts: Vec::new(),
            slot: None,
            rotated: false,
            listed: sub.listed.subscribe(),
            complained: None,
            asker,
            service,
            sub,
        }
    }

    /// Waits until there is a reason to ask, and says how.
    async fn choose(&mut self) -> Turn {
        let now = self.sub.board.now();
        let until_reading = self.next_reading.map(|at| Duration::from_millis(at.since(now)));
        if until_reading.is_some_and(|left| left.is_zero()) || Instant::now() >= self.resync {
            return Turn::Full;
        }
        self.meet_epoch(self.sub.client.epoch());
        if let Some(turn) = self.park(until_reading).await {
            return turn;
        }
        let Some(index) = self.position.index() else { return Turn::Quick };
        let limit = self.sub.client.blockable(SPARE);
        if self.slot.as_ref().is_some_and(|place| place.one_too_many(limit)) {
            self.slot = None;
        }
        if self.slot.is_none() {
            self.slot = self.sub.blocking.take(limit);
        }
        let rotated = self.slot.is_none();
        if rotated != self.rotated {
            self.rotated = rotated;
            let change = if rotated { 1 } else { usize::MAX };
            self.sub.rotated.fetch_add(change, Ordering::AcqRel);
        }
        self.figures.with(|f| f.followed = if rotated { Followed::Rotated } else { Followed::Watched });
        if rotated {
            let period = Duration::from_millis(rotation_ms(self.sub.rotated.load(Ordering::Acquire)));
            let period = about(period, &mut self.asker.draw);
            tokio::time::sleep(until_reading.map_or(period, |left| left.min(period))).await;
            return if self.next_reading.is_some() { Turn::Full } else { Turn::Quick };
        }
        let wait = until_reading.map_or(self.sub.settings.wait, |left| left.min(self.sub.settings.wait));
        Turn::Block(index, wait.max(Duration::from_millis(10)))
    }

    /// A service that is empty and not in the list would wake with strangers: it waits for its name instead (D2).
    async fn park(&mut self, until_reading: Option<Duration>) -> Option<Turn> {
        let empty = self.empty_since.is_some() && self.position.index().is_some();
        let believed =
            self.sub.board.with(|desk, _| desk.keeper(self.sub.part, &self.service).is_some_and(|k| k.is_empty()));
        if !empty || !believed || until_reading.is_some() || !self.listed.borrow().lacks(&self.service) {
            return None;
        }
        self.slot = None;
        self.figures.with(|figures| figures.followed = Followed::Parked);
        let service = self.service.clone();
        // The sender lives as long as the subscription, so an error means that this task ends soon too.
        let _ = self.listed.wait_for(|listed| !listed.lacks(&service)).await.map(drop);
        self.position.lost();
        Some(Turn::Full)
    }

    /// Asks once and takes over what may be believed.
    async fn turn(&mut self, turn: Turn) {
        let (index, wait) = match turn {
            Turn::Block(index, wait) => (index.get(), wait),
            Turn::Full | Turn::Quick => (0, Duration::ZERO),
        };
        let stale = self.sub.settings.stale && turn != Turn::Full;
        let query = Query { index, wait_ms: wait.as_millis() as u64, stale, dc: &self.sub.dc };
        let path = api::health_service(&self.service, query, &self.sub.settings);
        self.figures.with(|figures| figures.requests += 1);
        let names = refresh(&self.sub, &self.service, &self.names, &self.drafts);
        let answer = tokio::select! {
            answer = self.asker.ask(&path, wait) => answer,
            never = names => match never {},
        };
        let outcome = match answer {
            Ok((head, reply)) => self.take(head, reply, turn, stale).await,
            Err(failed) => Err(failed),
        };
        if let Err(failed) = outcome {
            self.position.lost();
            self.sub.board.with(|desk, now| desk.interrupted(self.sub.part, &self.service, Doubt::Broken, now));
            self.sub.figures.with(|figures| figures.counters.resets += 1);
            self.figures.with(|figures| figures.failing = Some(failed.message.clone()));
            let wait = self.asker.failed(&failed);
            tokio::time::sleep(wait).await;
        }
    }

    async fn take(&mut self, head: Head, reply: Reply, turn: Turn, stale: bool) -> Result<(), Failed> {
        let standing = self.position.index().is_some() && turn != Turn::Full;
        if self.meet_epoch(reply.epoch) && standing {
            return Ok(());
        }
        let fresh = head.leader_known && head.last_contact <= self.sub.settings.max_stale.as_millis() as u64;
        let answered = Answered {
            index: NonZeroU64::new(head.index).filter(|_| head.indexed),
            body: xxh3_64(&reply.body),
            asked: turn.asked(),
            fresh,
            reading_due: self.next_reading.is_some(),
        };
        let known = self.known();
        let step = self.position.meet(answered, known);
        if step.meaning == Meaning::Fell {
            self.fell(known, head.index);
            return Ok(());
        }
        if turn == Turn::Full {
            self.resync = Instant::now() + about(self.sub.settings.resync, &mut self.asker.draw);
        }
        if step.meaning == Meaning::Same {
            self.same();
        } else {
            let entries = parse(reply, &self.sub.settings).await.map_err(refused)?;
            self.judge(head, entries, !stale, fresh).await;
        }
        self.asker.worked();
        if stale && !fresh {
            // L4: once again from the leader. If that fails, the stale answer has added and changed, and removed nothing.
            self.next_reading = Some(self.sub.board.now());
        }
        if step.slowly {
            tokio::time::sleep(SLOW).await;
        }
        Ok(())
    }

    /// Another address or another token: the index means nothing there, and the next answer's losses are doubted.
    fn meet_epoch(&mut self, epoch: u64) -> bool {
        let another = std::mem::replace(&mut self.epoch, epoch) != epoch;
        if another {
            self.position.lost();
            self.interrupted(Doubt::Broken);
        }
        another
    }

    /// The index of the last answer that was judged; 0 before the first.
    fn known(&self) -> u64 {
        self.sub.board.with(|desk, _| {
            let keeper = desk.keeper(self.sub.part, &self.service);
            keeper.filter(|keeper| keeper.answered().is_some()).map_or(0, |keeper| keeper.index())
        })
    }

    /// The index went down: the losses of the next answer are doubted.
    fn fell(&self, known: u64, index: u64) {
        self.interrupted(Doubt::IndexFell);
        self.sub.figures.with(|figures| figures.counters.lower_index += 1);
        tracing::warn!(target: "pointsman::catalog", source = self.sub.name, service = %self.service, was = known, is = index,
            "the catalog's index went down (restarted, or a snapshot restored): reading again; losses are held");
    }

    fn interrupted(&self, doubt: Doubt) {
        self.sub.board.with(|desk, now| desk.interrupted(self.sub.part, &self.service, doubt, now));
    }

    fn same(&self) {
        self.sub.figures.with(|figures| figures.counters.idle_wakes += 1);
        self.figures.with(|figures| {
            figures.idle_wakes += 1;
            figures.answered_at = Some(Instant::now());
            figures.failing = None;
        });
    }

    async fn judge(&mut self, head: Head, entries: Entries, consistent: bool, leader_known: bool) {
        let (sub, service) = (Arc::clone(&self.sub), self.service.clone());
        self.names = names_of(&entries.drafts);
        sub.names.look_up(self.names.clone(), false, sub.settings.resolve_timeout).await;
        let (groups, mut kept) = sub.names.settle(&entries.drafts, &sub.own);
        kept.extend(entries.kept.iter().cloned());
        let empty = groups.is_empty() && kept.is_empty();
        let since = *self.empty_since.get_or_insert_with(Instant::now);
        if empty && self.wants_list() {
            read_again(&sub, &mut self.asker, since).await;
        }
        let still_listed = empty && self.listed.borrow().holds_since(&service, since);
        let nothing_listed = empty && self.listed.borrow().is_hidden_since(since, self.epoch);
        if !empty {
            self.empty_since = None;
        }
        let evidence = Evidence {
            consistent,
            leader_known,
            filtered: head.filtered,
            flawed: entries.flawed,
            still_listed,
            nothing_listed,
        };
        let answer = Answer { index: head.index, groups, kept, evidence };
        let (ruling, note, figures) = sub.board.with(|desk, now| {
            let ruling = desk.judge(sub.part, &service, answer, now);
            let mut figures = self.figures.read();
            let keeper = desk.keeper(sub.part, &service);
            figures.count(keeper.into_iter().flat_map(|k| k.groups()).flat_map(|(_, group)| group).map(AsRef::as_ref));
            let held = keeper.and_then(|keeper| keeper.holding());
            (ruling, held.map_or(Note::Trusted, |(instances, why)| Note::Held { instances, why }), figures)
        });
        self.next_reading = ruling.next_reading;
        self.figures.with(|own| {
            own.instances = figures.instances;
            own.index = head.index;
            own.answered_at = Some(Instant::now());
            own.from_disk = false;
            own.failing = None;
            own.note = note;
            own.skipped = entries.kept.len() + usize::from(entries.flawed);
            own.idle_wakes += u64::from(!ruling.judgement.changed);
        });
        self.report(&ruling, &entries);
        self.drafts = entries.drafts;
    }

    /// Whether the list of services is to be read before an empty answer is judged: everything would go now, or is held
    /// for want of a leader.
    fn wants_list(&self) -> bool {
        self.sub.board.with(|desk, _| {
            let keeper = desk.keeper(self.sub.part, &self.service).filter(|keeper| !keeper.is_empty());
            keeper.is_some_and(|keeper| keeper.holding().is_none_or(|(_, why)| why == Doubt::NoLeader))
        })
    }

    /// Counters and log lines of a ruling.
    fn report(&mut self, ruling: &Ruling, entries: &Entries) {
        let (judgement, source, service) = (&ruling.judgement, &self.sub.name, &self.service);
        let mass: usize = ruling.mass_held.values().sum();
        self.sub.figures.with(|figures| {
            let counters = &mut figures.counters;
            counters.idle_wakes += u64::from(!judgement.changed);
            counters.held += (judgement.held.map_or(0, |(count, _)| count) + mass) as u64;
            counters.confirmed += judgement.confirmed as u64;
            counters.accepted_after_hold += judgement.expired as u64;
            counters.skipped += (entries.problems.len() + entries.oddities) as u64;
        });
        if mass > 0 {
            tracing::error!(target: "pointsman::catalog", source, instances = mass, services = ruling.mass_held.len(),
                "more of the catalog went within seconds than the mass guard allows: all of it is held back; \
                 accept it per service in the admin interface if it is meant");
        }
        match judgement.held {
            Some((instances, Doubt::Permission)) => {
                tracing::error!(target: "pointsman::catalog", source, %service, instances,
                "instances are {}; they are kept until they come back or an operator accepts their loss", Doubt::Permission.words())
            }
            Some((instances, why)) => tracing::warn!(target: "pointsman::catalog", source, %service, instances,
                "instances are {}; they are held", why.words()),
            None => {}
        }
        if judgement.expired > 0 {
            tracing::warn!(target: "pointsman::catalog", source, %service, instances = judgement.expired,
                "the catalog has not named these instances for the whole hold: they leave the table");
        }
        if judgement.confirmed > 0 {
            tracing::info!(target: "pointsman::catalog", source, %service, instances = judgement.confirmed,
                "a second reading confirms the loss: the instances leave the table");
        }
        if !judgement.removed.is_empty() {
            tracing::info!(target: "pointsman::catalog", source, %service, instances = judgement.removed.len(),
                "instances left the catalog");
        }
        if let Some(first) = entries.problems.first()
            && self.complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(60))
        {
            self.complained = Some(Instant::now());
            let (count, first) = (entries.problems.len(), first.escape_debug());
            tracing::warn!(target: "pointsman::catalog", source, %service, count, %first,
                    "instances of the catalog cannot be used; they stay as they were");
        }
    }
}

/// Looks this service's host names up again and again. Never ends.
async fn refresh(
    sub: &Subscription,
    service: &Text,
    names: &BTreeSet<String>,
    drafts: &[entry::Draft],
) -> std::convert::Infallible {
    if names.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(sub.settings.resolve_interval.max(Duration::from_secs(1))).await;
        sub.names.look_up(names.clone(), true, sub.settings.resolve_timeout).await;
        let (groups, _) = sub.names.settle(drafts, &sub.own);
        sub.board.with(|desk, _| desk.readdress(sub.part, service, &groups));
    }
}

/// Between two readings of a service without a connection of its own: at most 50 such readings a second, and every
/// service within a minute as long as that allows it.
fn rotation_ms(rotated: usize) -> u64 {
    (rotated as u64 * 1_000 / 50).max(2_000)
}

async fn parse(reply: Reply, settings: &Arc<Settings>) -> Result<Entries, String> {
    if reply.body.len() < body::LARGE {
        return entry::read(&reply.body, settings, origin(settings));
    }
    let settings = Arc::clone(settings);
    let work = tokio::task::spawn_blocking(move || entry::read(&reply.body, &settings, origin(&settings)));
    work.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn origin(settings: &Settings) -> Origin<'_> {
    Origin {
        namespace: settings.namespace.as_deref().unwrap_or(""),
        partition: settings.partition.as_deref().unwrap_or(""),
        peer: settings.peer.as_deref().unwrap_or(""),
    }
}

fn refused(problem: String) -> Failed {
    Failed { failure: Failure::Ordinary, message: format!("the answer is refused: {problem}") }
}
