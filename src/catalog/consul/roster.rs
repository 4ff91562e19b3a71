//! Which services are followed: those that the rules name and those that `select` chooses (D1–D3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::follow::follow;
use super::services::{Listed, Selector};
use super::subscription::Subscription;
use crate::catalog::Wanted;
use crate::catalog::watch::desk::Desk;
use crate::catalog::watch::keeper::Keeper;
use crate::engine::label::Text;

/// How often services that may have ended are looked at.
const TIDY: Duration = Duration::from_secs(5);

/// Keeps one task a service, and drops none that stays.
pub(super) async fn keep_roster(sub: Arc<Subscription>, selector: Selector, mut wanted: watch::Receiver<Wanted>) {
    let mut listed = sub.listed.subscribe();
    let mut running: BTreeMap<Text, AbortHandle> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut rules_follow = true;
    // Whether services were followed for being in the list alone.
    let mut was_all = false;
    loop {
        let Wanted { services: names, all } = wanted.borrow_and_update().clone();
        let list = listed.borrow_and_update().clone();
        let chosen = list.names.as_ref().map(|names| selector.chosen(names, all)).unwrap_or_default();
        was_all |= all;
        let ended: Vec<Text> = running
            .keys()
            .filter(|name| {
                over(&sub, selector.by_name(name) || selector.has_tags() || was_all, name, &names, &chosen, &list)
            })
            .cloned()
            .collect();
        for name in ended {
            if let Some(task) = running.remove(&name) {
                task.abort();
                sub.board.with(|desk, _| desk.forget(sub.part, &name));
                sub.status.forget(&sub.name, &name);
                tracing::info!(target: "pointsman::catalog", source = sub.name, service = %name, "not followed any more");
            }
        }
        let copied = if all { sub.board.with(|desk, _| from_disk(desk, sub.part)) } else { BTreeSet::new() };
        for name in names.union(&chosen).chain(&copied) {
            if !running.contains_key(name) {
                // Readiness waits for it from here on.
                drop(sub.status.service(&sub.name, name));
                let task = tasks.spawn(follow(Arc::clone(&sub), name.clone()));
                running.insert(name.clone(), task);
            }
        }
        let rotated = sub.rotated.load(std::sync::atomic::Ordering::Acquire);
        let count = running.len();
        sub.figures.with(|figures| {
            (figures.watched, figures.rotated) = (count.saturating_sub(rotated), rotated);
            figures.listed |= list.tried;
        });
        tokio::select! {
            changed = wanted.changed(), if rules_follow => rules_follow = changed.is_ok(),
            _ = listed.changed() => {}
            () = tokio::time::sleep(TIDY) => {}
            Some(ended) = tasks.join_next() => restart(&sub, ended, &mut running),
        }
    }
}

/// Services whose last state came from the copy on disk: when every service is wanted, each is followed until its own
/// watch has said what became of it.
fn from_disk(desk: &Desk, part: usize) -> BTreeSet<Text> {
    let of_part =
        |(of, name, keeper): (usize, &Text, &Keeper)| (of == part && !keeper.is_empty()).then(|| name.clone());
    desk.keepers().filter_map(of_part).collect()
}

/// A follower never ends by itself: when one did, it is begun again by the next round.
fn restart(sub: &Subscription, ended: Result<(), tokio::task::JoinError>, running: &mut BTreeMap<Text, AbortHandle>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(target: "pointsman::catalog", source = sub.name, %error,
                "following a service ended by a fault of ours; its last good state stays, and it is followed afresh");
    }
    running.retain(|_, task| !task.is_finished());
}

/// Whether a service is not followed any more. One that the list lost is decided by its own watch: it ends when nothing
/// of it is left, neither listed nor held.
fn over(
    sub: &Subscription,
    was_chosen: bool,
    name: &Text,
    wanted: &BTreeSet<Text>,
    chosen: &BTreeSet<Text>,
    list: &Listed,
) -> bool {
    if wanted.contains(name) || chosen.contains(name) {
        return false;
    }
    let unknown = list.names.is_none() || list.lacks(name);
    if was_chosen && unknown {
        let empty = |desk: &mut Desk, _| desk.keeper(sub.part, name).is_some_and(|keeper| keeper.is_empty());
        return list.names.is_some() && sub.board.with(empty);
    }
    true
}
