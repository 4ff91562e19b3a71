//! The list of services: one blocking query on `/v1/catalog/services`. It says which names exist (D1, D2, D3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use tokio::time::Instant;

use super::api::{self, Query};
use super::ask::{Asker, Failed};
use super::settings::Select;
use super::subscription::{Subscription, about};
use crate::catalog::watch::backoff::Failure;
use crate::engine::label::Text;

/// The last list.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed {
    /// Names and tags; `None`: the list cannot be read, or says nothing at all, so it decides nothing.
    pub(super) names: Option<Arc<Names>>,
    /// When the request that brought it began.
    pub(super) asked: Option<Instant>,
    /// Whether one attempt was made.
    pub(super) tried: bool,
    /// With the address and token of this epoch a list named Consul itself, and none since that named others without it.
    consul: Option<u64>,
    /// When it was last read out of turn, well or not.
    reread: Option<Instant>,
}

/// Service names with their tags. Consul looks names up without regard to case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    tags: BTreeMap<String, BTreeSet<String>>,
    lower: BTreeSet<String>,
}

impl Listed {
    /// Whether the list is there and lacks this name.
    pub(super) fn lacks(&self, service: &str) -> bool {
        self.names.as_ref().is_some_and(|names| !names.lower.contains(&service.to_lowercase()))
    }

    /// Whether it was asked for after `moment`.
    pub(super) fn is_since(&self, moment: Instant) -> bool {
        self.asked.is_some_and(|asked| asked > moment)
    }

    /// Whether a list that was asked for after `moment` names nothing, not even Consul, which was named before with the
    /// same token. A catalog that answers has Consul in it, so the token may not read it any more.
    pub(super) fn is_hidden_since(&self, moment: Instant, epoch: u64) -> bool {
        self.names.is_none() && self.consul == Some(epoch) && self.is_since(moment)
    }

    /// What is known once this list was read: of `names`, asked for at `asked` in this epoch.
    fn then(&self, names: Names, asked: Instant, epoch: u64) -> Self {
        let consul = match names.lower.contains("consul") {
            true => Some(epoch),
            false => self.consul.filter(|_| names.tags.is_empty()),
        };
        let names = (!names.tags.is_empty()).then(|| Arc::new(names));
        let asked = self.asked.map_or(asked, |latest| latest.max(asked));
        Self { names, asked: Some(asked), tried: true, consul, reread: self.reread }
    }

    /// Whether the list is there, was asked for after `moment`, and holds this name.
    pub(super) fn holds_since(&self, service: &str, moment: Instant) -> bool {
        self.names.as_ref().is_some_and(|names| names.lower.contains(&service.to_lowercase())) && self.is_since(moment)
    }
}

impl Names {
    fn new(tags: BTreeMap<String, BTreeSet<String>>) -> Self {
        let lower = tags.keys().map(|name| name.to_lowercase()).collect();
        Self { tags, lower }
    }

    /// Every name.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.tags.keys().map(String::as_str)
    }
}

/// `select`, compiled.
#[derive(Debug)]
pub(super) struct Selector {
    tags: BTreeSet<String>,
    prefixes: Vec<String>,
    whole: Option<Regex>,
}

impl Selector {
    /// # Errors
    /// An expression that is not one.
    pub(super) fn new(select: &Select) -> Result<Self, String> {
        let whole = select.matches.as_ref().map(|text| whole(text)).transpose();
        Ok(Self {
            tags: select.tags.iter().cloned().collect(),
            prefixes: select.prefixes.clone(),
            whole: whole.map_err(|error| error.to_string())?,
        })
    }

    /// Whether a name is chosen whatever its tags are.
    pub(super) fn by_name(&self, name: &str) -> bool {
        name != "consul"
            && (self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
                || self.whole.as_ref().is_some_and(|whole| whole.is_match(name)))
    }

    /// Everything the list holds that is chosen; with `all`, everything but Consul itself.
    pub(super) fn chosen(&self, names: &Names, all: bool) -> BTreeSet<Text> {
        let chosen = names.tags.iter().filter(|(name, tags)| {
            (all && name.as_str() != "consul")
                || self.by_name(name)
                || name.as_str() != "consul" && tags.intersection(&self.tags).next().is_some()
        });
        chosen.map(|(name, _)| Text::from(name.as_str())).collect()
    }

    /// Whether a service that is in the list no more may have been chosen by its tags.
    pub(super) fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }
}

/// An expression that must match a whole name.
fn whole(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).nest_limit(100).build()
}

/// Follows the list for as long as the subscription lives.
pub(super) async fn follow_list(sub: Arc<Subscription>) {
    let mut asker = Asker::new(&sub, "list of services".to_owned());
    let (mut index, mut epoch) = (0, sub.client.epoch());
    let mut resync = Instant::now() + about(sub.settings.resync, &mut asker.draw);
    loop {
        let now = sub.client.epoch();
        if std::mem::replace(&mut epoch, now) != now {
            index = 0;
        }
        let full = index == 0 || Instant::now() >= resync;
        let wait = if full { Duration::ZERO } else { sub.settings.wait };
        let query = Query {
            index: if full { 0 } else { index },
            wait_ms: wait.as_millis() as u64,
            stale: sub.settings.stale && !full,
            dc: &sub.dc,
        };
        let asked = Instant::now();
        let outcome = match asker.ask(&api::catalog_services(query, &sub.settings), wait).await {
            Ok((head, reply)) => read(&reply.body).map(|names| (head, reply.epoch, names)),
            Err(failed) => Err(failed),
        };
        match outcome {
            Ok((head, reply_epoch, names)) => {
                asker.worked();
                if full {
                    resync = Instant::now() + about(sub.settings.resync, &mut asker.draw);
                }
                let lower = head.index < index || reply_epoch != epoch;
                epoch = reply_epoch;
                index = if lower || !head.indexed { 0 } else { head.index };
                note(&sub, names, asked, reply_epoch);
                if !head.indexed {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
            Err(failed) => {
                index = 0;
                let wait = asker.failed(&failed);
                // A list that was there stays: names in it are not gone because it cannot be read now. A token that may
                // not read it means that it will never decide anything.
                sub.listed.send_if_modified(|listed| {
                    let forbidden = failed.failure == Failure::Forbidden && listed.names.is_some();
                    if forbidden {
                        listed.names = None;
                    }
                    !std::mem::replace(&mut listed.tried, true) || forbidden
                });
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Reads the list now, unless it was since this moment: the one that blocks may say nothing for a minute. A failure is
/// its affair, and is not tried again by those who waited for the same reading.
pub(super) async fn read_again(sub: &Subscription, asker: &mut Asker, since: Instant) {
    let Ok(_turn) = sub.rereading.acquire().await else { return };
    if sub.listed.borrow().reread.is_some_and(|began| began > since) || sub.listed.borrow().is_since(since) {
        return;
    }
    let asked = Instant::now();
    sub.listed.send_if_modified(|listed| {
        listed.reread = Some(asked);
        false
    });
    let query = Query { dc: &sub.dc, ..Query::default() };
    let answer = asker.ask(&api::catalog_services(query, &sub.settings), Duration::ZERO).await;
    if let Ok((names, epoch)) = answer.and_then(|(_, reply)| Ok((read(&reply.body)?, reply.epoch))) {
        note(sub, names, asked, epoch);
    }
}

/// A list that was asked for then.
fn note(sub: &Subscription, names: Names, asked: Instant, epoch: u64) {
    sub.listed.send_if_modified(|listed| {
        let next = listed.then(names, asked, epoch);
        let news = listed.names != next.names || !listed.tried;
        *listed = next;
        news
    });
}

fn read(body: &[u8]) -> Result<Names, Failed> {
    read_names(body).map_err(|message| Failed { failure: Failure::Ordinary, message })
}

/// Reads `/v1/catalog/services`. Tags come in any order, so they are sets.
///
/// # Errors
/// A body that is no such list.
pub(super) fn read_names(body: &[u8]) -> Result<Names, String> {
    let list: Option<BTreeMap<String, Option<BTreeSet<String>>>> =
        serde_json::from_slice(body).map_err(|error| format!("the list of services is unreadable: {error}"))?;
    let tags = list.unwrap_or_default().into_iter().map(|(name, tags)| (name, tags.unwrap_or_default()));
    Ok(Names::new(tags.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &str) -> Names {
        read(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_list_that_names_nothing_hides_something_if_it_named_consul_before_with_the_same_token() {
        let (began, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let hidden = |lists: &[(&str, u64)], epoch| {
            let mut listed = Listed::default();
            for (body, epoch) in lists {
                listed = listed.then(names(body), later, *epoch);
            }
            listed.is_hidden_since(began, epoch) && !listed.is_hidden_since(later, epoch)
        };
        assert!(hidden(&[(r#"{"consul":[],"web":[]}"#, 1), ("{}", 1), ("{}", 1)], 1));
        assert!(!hidden(&[(r#"{"consul":[]}"#, 1)], 1));
        assert!(!hidden(&[(r#"{"web":[]}"#, 1), ("{}", 1)], 1), "a token for web alone, whose last instance went");
        assert!(!hidden(&[(r#"{"consul":[]}"#, 1), (r#"{"web":[]}"#, 1), ("{}", 1)], 1));
        assert!(!hidden(&[(r#"{"consul":[]}"#, 1), ("{}", 2)], 2), "another token may never have named it");
        assert!(!hidden(&[("{}", 1)], 1));
    }

    #[test]
    fn services_are_chosen_by_tag_prefix_or_whole_name_but_never_consul_itself() {
        let all = names(r#"{"consul":["web"],"web-a":[],"web-b":["x"],"api":["edge","v1"],"billing":null}"#);
        let check = |select: Select, expected: &[&str]| {
            let chosen = Selector::new(&select).unwrap().chosen(&all, false);
            assert_eq!(chosen.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
        };
        let list = |text: &str| vec![text.to_owned()];
        check(Select::default(), &[]);
        check(Select { prefixes: list("web-"), ..Select::default() }, &["web-a", "web-b"]);
        check(Select { tags: list("edge"), ..Select::default() }, &["api"]);
        check(Select { tags: list("web"), matches: Some("b.*|c.*".to_owned()), ..Select::default() }, &["billing"]);
        assert!(Selector::new(&Select { matches: Some("(".to_owned()), ..Select::default() }).is_err());
    }

    #[test]
    fn the_list_decides_only_when_it_is_there_and_names_have_no_case() {
        let mut listed = Listed::default();
        assert!(!listed.lacks("web"));
        listed.names = Some(Arc::new(names(r#"{"consul":[],"UPPER":[]}"#)));
        assert!(listed.lacks("web") && !listed.lacks("upper"));
    }

    #[test]
    fn an_unreadable_list_is_a_failure() {
        assert!(read(b"[]").is_err() && read(b"{\"a\":[]} x").is_err());
        assert!(read(b"null").unwrap().tags.is_empty());
    }
}
