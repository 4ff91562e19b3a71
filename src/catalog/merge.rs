//! Several sources as one: the state of a service is what all of them say together. Pure.

use std::collections::BTreeMap;

use super::{CatalogUpdate, Note, ServiceState};
use crate::engine::label::Text;

/// The last state of each service at each source.
#[derive(Debug, Default)]
pub(super) struct Merge {
    parts: BTreeMap<Text, BTreeMap<usize, ServiceState>>,
}

impl Merge {
    /// Takes one source's update and says what it means for the whole.
    pub(super) fn apply(&mut self, source: usize, update: CatalogUpdate) -> CatalogUpdate {
        match update {
            CatalogUpdate::Service(state) => {
                let parts = self.parts.entry(state.name.clone()).or_default();
                let name = state.name.clone();
                parts.insert(source, state);
                CatalogUpdate::Service(together(name, parts))
            }
            CatalogUpdate::Gone(name) => {
                let Some(parts) = self.parts.get_mut(&name) else { return CatalogUpdate::Gone(name) };
                parts.remove(&source);
                if parts.is_empty() {
                    self.parts.remove(&name);
                    return CatalogUpdate::Gone(name);
                }
                CatalogUpdate::Service(together(name, parts))
            }
        }
    }
}

fn together(name: Text, parts: &BTreeMap<usize, ServiceState>) -> ServiceState {
    if let (1, Some(only)) = (parts.len(), parts.values().next()) {
        return only.clone();
    }
    let mut instances: Vec<_> = parts.values().flat_map(|state| state.instances.iter().cloned()).collect();
    instances.sort_by(|a, b| (&a.identity, a.addr).cmp(&(&b.identity, b.addr)));
    let held = parts.values().filter_map(|state| match state.note {
        Note::Held { instances, why } => Some((instances, why)),
        Note::Trusted => None,
    });
    let note = held
        .reduce(|a, b| (a.0 + b.0, a.1.max(b.1)))
        .map_or(Note::Trusted, |(instances, why)| Note::Held { instances, why });
    let index = parts.values().map(|state| state.index).max().unwrap_or(0);
    ServiceState { name, index, instances, note }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::watch::picture::sample;

    fn state(ids: &[&str]) -> CatalogUpdate {
        let instances = ids.iter().map(|id| sample("web", id)).collect();
        CatalogUpdate::Service(ServiceState { name: "web".into(), index: 1, instances, note: Note::Trusted })
    }

    fn count(update: &CatalogUpdate) -> Option<usize> {
        match update {
            CatalogUpdate::Service(state) => Some(state.instances.len()),
            CatalogUpdate::Gone(_) => None,
        }
    }

    #[test]
    fn a_service_is_the_sum_of_its_sources_and_goes_with_the_last() {
        let mut merge = Merge::default();
        assert_eq!(count(&merge.apply(0, state(&["a", "b"]))), Some(2));
        assert_eq!(count(&merge.apply(1, state(&["c"]))), Some(3));
        assert_eq!(count(&merge.apply(0, CatalogUpdate::Gone("web".into()))), Some(1));
        assert_eq!(count(&merge.apply(1, CatalogUpdate::Gone("web".into()))), None);
    }
}
