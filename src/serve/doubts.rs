//! What is told of the catalog: instances kept against its word, how that ended, silence and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::catalog::status::ServiceFigures;
use crate::catalog::{CatalogStatus, Note};
use crate::engine::label::Text;
use crate::observe::events::{Events, Kind, Report};

/// How often the catalog's figures are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Records an event at every change, and keeps the set of services about which the catalog has been silent for too
/// long, for as long as it is polled.
pub async fn follow(status: Arc<CatalogStatus>, events: Arc<Events>, stale_services: watch::Sender<BTreeSet<Text>>) {
    let mut seen: BTreeMap<(Text, String), Seen> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let mut silent = BTreeSet::new();
        for (service, source, figures) in status.services() {
            // A service that was never answered has no state to be old: that is for readiness to tell.
            let stale = figures.answered_at.is_some() && status.stale(&service);
            if stale {
                silent.insert(service.clone());
            }
            let before = seen.entry((service.clone(), source.clone())).or_default();
            for (kind, words) in before.changes(&figures, stale) {
                events.record(Report::new(kind, format!("{source}: {words}")).service(&service));
            }
        }
        stale_services.send_if_modified(|last| {
            let changed = *last != silent;
            *last = silent;
            changed
        });
    }
}

/// What was last told about a service at a source.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    held: usize,
    /// Instances known while the hold lasted.
    known: usize,
    stale: bool,
}

impl Seen {
    fn changes(&mut self, figures: &ServiceFigures, stale: bool) -> Vec<(Kind, String)> {
        let mut told = Vec::new();
        let known = figures.instances.iter().sum();
        match figures.note {
            Note::Held { instances, why } => {
                if instances > self.held {
                    told.push((Kind::CatalogHeld, format!("{instances} instances are kept: {}", why.words())));
                }
                (self.held, self.known) = (instances, known);
            }
            Note::Trusted if self.held > 0 => {
                told.push(match self.known.saturating_sub(known) {
                    0 => (Kind::CatalogRecovered, "every instance that was kept is named again".to_owned()),
                    gone => (Kind::CatalogAccepted, format!("{gone} instances that were kept are gone")),
                });
                self.held = 0;
            }
            Note::Trusted => {}
        }
        if stale != self.stale {
            let words = figures.failing.as_deref().unwrap_or("no answer");
            told.push(match stale {
                true => (Kind::CatalogStale, format!("no good answer for a while, the last state stays: {words}")),
                false => (Kind::CatalogRecovered, "it answers again".to_owned()),
            });
            self.stale = stale;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::watch::keeper::Doubt;

    fn figures(passing: usize, held: usize) -> ServiceFigures {
        let note = match held {
            0 => Note::Trusted,
            instances => Note::Held { instances, why: Doubt::Mass },
        };
        ServiceFigures { note, instances: [passing, 0, 0, 0], ..ServiceFigures::default() }
    }

    fn kinds(seen: &mut Seen, figures: &ServiceFigures, stale: bool) -> Vec<Kind> {
        seen.changes(figures, stale).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_hold_is_told_once_and_so_is_its_end() {
        let mut seen = Seen::default();
        assert_eq!(kinds(&mut seen, &figures(20, 0), false), []);
        assert_eq!(kinds(&mut seen, &figures(20, 15), false), [Kind::CatalogHeld]);
        assert_eq!(kinds(&mut seen, &figures(20, 15), false), []);
        assert_eq!(kinds(&mut seen, &figures(5, 0), false), [Kind::CatalogAccepted]);
        assert_eq!(kinds(&mut seen, &figures(5, 1), false), [Kind::CatalogHeld]);
        assert_eq!(kinds(&mut seen, &figures(5, 0), false), [Kind::CatalogRecovered]);
        assert_eq!(kinds(&mut seen, &figures(5, 0), true), [Kind::CatalogStale]);
        assert_eq!(kinds(&mut seen, &figures(5, 0), false), [Kind::CatalogRecovered]);
    }
}
