//! Host names of instances: looked up with a deadline, kept when the lookup fails (CATALOGS.md M2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::entry::Draft;
use super::subscription::OwnAddresses;
use crate::catalog::watch::keeper::Group;
use crate::engine::label::Text;

/// The last good addresses of every name.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
}

/// Lookups at once.
const AT_ONCE: usize = 16;

impl Names {
    /// Looks names up and remembers what was found. With `again` also those that are known; a failure keeps what is known.
    pub(super) async fn look_up(&self, names: BTreeSet<String>, again: bool, within: Duration) {
        let mut names: Vec<String> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            names.into_iter().filter(|name| again || !known.contains_key(name)).collect()
        };
        let mut running = JoinSet::new();
        loop {
            while running.len() < AT_ONCE {
                let Some(name) = names.pop() else { break };
                running.spawn(async move {
                    let found = tokio::time::timeout(within, tokio::net::lookup_host((name.as_str(), 0))).await;
                    let addresses = match found {
                        Ok(Ok(found)) => Ok(found.map(|addr| addr.ip().to_canonical()).collect::<BTreeSet<_>>()),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err(format!("no answer within {within:?}")),
                    };
                    (name.clone(), addresses)
                });
            }
            match running.join_next().await {
                None => return,
                Some(Ok((name, Ok(found)))) if !found.is_empty() => {
                    let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(name, found.into_iter().collect());
                }
                Some(Ok((name, problem))) => {
                    let error = problem.err().unwrap_or_else(|| "no address".to_owned());
                    tracing::warn!(target: "pointsman::catalog", host = %name.escape_debug(), error,
                        "an instance's host name cannot be resolved; its last addresses stay in force");
                }
                Some(Err(error)) => {
                    tracing::error!(target: "pointsman::catalog", %error, "a name lookup ended badly");
                }
            }
        }
    }

    /// Drafts as instances, by identity, and the identities whose name has no known address. Our own listeners are left
    /// out.
    pub(super) fn settle(&self, drafts: &[Draft], own: &OwnAddresses) -> (BTreeMap<Text, Group>, BTreeSet<Text>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut groups, mut kept) = (BTreeMap::<Text, Group>::new(), BTreeSet::new());
        for draft in drafts {
            let literal = draft.host.parse::<IpAddr>().map(|ip| vec![ip]).ok();
            let Some(addresses) = literal.as_ref().or_else(|| known.get(&draft.host)) else {
                kept.insert(draft.instance.identity.clone());
                continue;
            };
            for ip in addresses {
                let addr = SocketAddr::new(*ip, draft.port);
                if own.contain(addr) {
                    tracing::warn!(target: "pointsman::catalog", service = %draft.instance.service, %addr,
                        "an instance has the address of our own listener: dropped, a request must not come back to us");
                    continue;
                }
                let mut instance = draft.instance.clone();
                instance.addr = addr;
                groups.entry(instance.identity.clone()).or_default().push(Arc::new(instance));
            }
        }
        (groups, kept)
    }
}

/// The host names among the drafts.
pub(super) fn names_of(drafts: &[Draft]) -> BTreeSet<String> {
    drafts.iter().filter(|draft| draft.host.parse::<IpAddr>().is_err()).map(|draft| draft.host.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::watch::picture::sample;

    fn draft(id: &str, host: &str, port: u16) -> Draft {
        Draft { host: host.to_owned(), port, instance: (*sample("web", id)).clone() }
    }

    #[tokio::test]
    async fn a_name_is_every_address_it_has_and_an_unknown_one_keeps_its_instance() {
        let names = Names::default();
        names
            .known
            .lock()
            .unwrap()
            .insert("two.test".to_owned(), vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        let drafts = [draft("a", "two.test", 80), draft("b", "gone.test", 80), draft("c", "10.0.0.3", 80)];
        let (groups, kept) = names.settle(&drafts, &OwnAddresses::default());
        assert_eq!(groups[&Text::from("test/a")].len(), 2);
        assert_eq!(groups[&Text::from("test/c")].len(), 1);
        assert!(kept.contains("test/b") && kept.len() == 1);
    }

    #[tokio::test]
    async fn a_failed_lookup_keeps_what_was_known() {
        let names = Names::default();
        names.look_up(["localhost".to_owned()].into(), false, Duration::from_secs(5)).await;
        let before = names.known.lock().unwrap().clone();
        assert!(before["localhost"].iter().all(IpAddr::is_loopback));
        names.look_up(["localhost".to_owned()].into(), true, Duration::ZERO).await;
        assert_eq!(*names.known.lock().unwrap(), before);
    }

    #[test]
    fn an_instance_at_our_own_listener_is_dropped() {
        let own = OwnAddresses::new(&["127.0.0.1:8080".parse().unwrap()]);
        let (groups, kept) = Names::default().settle(&[draft("a", "127.0.0.1", 8080)], &own);
        assert!(groups.is_empty() && kept.is_empty());
    }
}
