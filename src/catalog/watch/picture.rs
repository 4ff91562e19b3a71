//! From what is believed to what is published: one endpoint an address, names that people can tell apart. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::keeper::Group;
use crate::engine::instance::Instance;
use crate::engine::label::Text;

/// Every instance of a service, sorted by identity.
///
/// Where several entries have the same address and port (registered on two agents) there is one endpoint: the content of
/// the one in the best state, under the least identity, so that its live state stays when the states change (M3). Where a
/// service ID occurs twice, `id` is `node/ID`.
#[must_use]
pub fn picture<'g>(groups: impl Iterator<Item = &'g Group>) -> Vec<Arc<Instance>> {
    let mut by_addr: BTreeMap<SocketAddr, Vec<&Arc<Instance>>> = BTreeMap::new();
    for instance in groups.flatten() {
        by_addr.entry(instance.addr).or_default().push(instance);
    }
    let mut all: Vec<Arc<Instance>> = by_addr.into_values().map(one_of).collect();
    all.sort_by(|a, b| (&a.identity, a.addr).cmp(&(&b.identity, b.addr)));
    let mut holders: BTreeMap<Text, Vec<usize>> = BTreeMap::new();
    for (at, instance) in all.iter().enumerate() {
        holders.entry(Arc::clone(&instance.id)).or_default().push(at);
    }
    for (id, at) in holders.into_iter().filter(|(_, at)| at.len() > 1) {
        let nodes: Vec<Text> = at.iter().map(|at| Arc::clone(&all[*at].node)).collect();
        for at in at {
            let node = &all[at].node;
            let shared = nodes.iter().filter(|other| *other == node).count() > 1;
            let name = if shared { format!("{node}/{id}@{}", all[at].addr) } else { format!("{node}/{id}") };
            Arc::make_mut(&mut all[at]).id = name.into();
        }
    }
    all
}

fn one_of(mut same: Vec<&Arc<Instance>>) -> Arc<Instance> {
    same.sort_by(|a, b| a.identity.cmp(&b.identity));
    let best = same.iter().min_by_key(|instance| (instance.status, &instance.identity)).unwrap_or(&same[0]);
    if best.identity == same[0].identity {
        return Arc::clone(best);
    }
    let mut instance = Instance::clone(best);
    instance.identity = Arc::clone(&same[0].identity);
    instance.id = Arc::clone(&same[0].id);
    Arc::new(instance)
}

#[cfg(test)]
pub(crate) fn sample(service: &str, id: &str) -> Arc<Instance> {
    let port = 1_000 + id.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)) % 50_000);
    Arc::new(Instance {
        identity: format!("test/{id}").into(),
        id: id.into(),
        service: service.into(),
        addr: SocketAddr::from(([127, 0, 0, 1], port)),
        host: "127.0.0.1".into(),
        node: "n1".into(),
        dc: "dc1".into(),
        labels: crate::engine::label::Labels::default(),
        tags: Arc::from([]),
        weights: crate::engine::instance::Weights::default(),
        status: crate::engine::instance::Status::Passing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::instance::Status;

    fn with(id: &str, change: impl FnOnce(&mut Instance)) -> Group {
        let mut instance = Instance::clone(&sample("web", id));
        change(&mut instance);
        vec![Arc::new(instance)]
    }

    #[test]
    fn one_address_is_one_endpoint_in_the_best_state_under_a_name_that_stays() {
        let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let critical = with("a", |i| (i.addr, i.status) = (addr, Status::Critical));
        let passing = with("b", |i| (i.addr, i.status) = (addr, Status::Passing));
        let seen = picture([&critical, &passing].into_iter());
        assert_eq!(seen.len(), 1);
        assert_eq!((&*seen[0].identity, seen[0].status), ("test/a", Status::Passing));
        let only = picture([&passing].into_iter());
        assert_eq!(&*only[0].identity, "test/b");
    }

    #[test]
    fn equal_service_ids_are_told_apart_by_node() {
        let one = with("a", |i| i.node = "n1".into());
        let two = with("b", |i| (i.id, i.node) = ("a".into(), "n2".into()));
        let ids: Vec<String> = picture([&one, &two].into_iter()).iter().map(|i| i.id.to_string()).collect();
        assert_eq!(ids, ["n1/a", "n2/a"]);
    }
}
