//! A subscriber under test: started, and asked for what it publishes.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman::catalog::consul::Settings;
use pointsman::catalog::status::{Counters, ServiceFigures, SourceFigures};
use pointsman::catalog::{self, CatalogUpdate, Note, Running, ServiceState, Surroundings, Wanted};
use tokio::sync::watch;

/// Nothing that should happen takes longer than this.
pub const SOON: Duration = Duration::from_secs(10);

/// A running subscriber and the last state of every service that it published.
pub struct Subscriber {
    pub running: Running,
    pub wanted: watch::Sender<Wanted>,
    states: BTreeMap<String, ServiceState>,
    stop: watch::Sender<bool>,
}

/// The defaults, with this address.
pub fn settings(url: String) -> Settings {
    Settings { address: vec![url], ..Settings::default() }
}

impl Subscriber {
    pub fn start(settings: Settings, services: &[&str]) -> Self {
        Self::among(settings, services, &Surroundings::default())
    }

    /// One of every service that the catalog lists.
    pub fn of_all(settings: Settings) -> Self {
        Self::of(settings, Wanted { all: true, ..Wanted::default() }, &Surroundings::default())
    }

    pub fn among(settings: Settings, services: &[&str], surroundings: &Surroundings) -> Self {
        Self::of(settings, wanted(services), surroundings)
    }

    fn of(settings: Settings, wanted: Wanted, surroundings: &Surroundings) -> Self {
        let (wanted, names) = watch::channel(wanted);
        let (stop, shutdown) = watch::channel(false);
        let settings = catalog::Settings { consul: Some(settings), file: None };
        let running = catalog::start(settings, surroundings, names, shutdown).expect("the settings are good");
        Self { running, wanted, states: BTreeMap::new(), stop }
    }

    /// Waits until the last published state of a service is as wanted; fails after a while, saying what it was.
    pub async fn until(&mut self, service: &str, what: impl Fn(&ServiceState) -> bool) -> ServiceState {
        self.within(SOON, service, what).await
    }

    pub async fn within(
        &mut self,
        time: Duration,
        service: &str,
        what: impl Fn(&ServiceState) -> bool,
    ) -> ServiceState {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            if let Some(state) = self.states.get(service).filter(|state| what(state)) {
                return state.clone();
            }
            match tokio::time::timeout_at(deadline, self.running.updates.recv()).await {
                Ok(Some(update)) => self.note(update),
                Ok(None) => panic!("the subscriber has stopped"),
                Err(_) => panic!(
                    "{service} did not become as wanted; last state: {:?}\n{:?}\n{:?}",
                    self.states.get(service),
                    self.source(),
                    self.service(service)
                ),
            }
        }
    }

    /// Waits until a service has left.
    pub async fn until_gone(&mut self, service: &str) {
        let deadline = tokio::time::Instant::now() + SOON;
        while self.states.contains_key(service) {
            let update = tokio::time::timeout_at(deadline, self.running.updates.recv()).await;
            self.note(update.expect("it leaves soon").expect("the subscriber lives"));
        }
    }

    /// Waits until a service has these instances, by ID.
    pub async fn until_ids(&mut self, service: &str, ids: &[&str]) -> ServiceState {
        self.until(service, |state| self::ids(state) == ids).await
    }

    /// For so long nothing may be published about a service that lacks one of these instances.
    pub async fn never_without(&mut self, service: &str, ids: &[&str], time: Duration) {
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(update) = tokio::time::timeout_at(deadline, self.running.updates.recv()).await {
            self.note(update.expect("the subscriber lives"));
            let state = self.states.get(service).expect("the service stays");
            let has = self::ids(state);
            assert!(ids.iter().all(|id| has.contains(id)), "lost some of {ids:?}: {has:?}");
        }
    }

    /// For so long nothing may be published at all.
    pub async fn silent(&mut self, time: Duration) {
        if let Ok(update) = tokio::time::timeout(time, self.running.updates.recv()).await {
            panic!("nothing was to be published: {update:?}");
        }
    }

    /// Waits until the counters are as wanted.
    pub async fn until_counters(&self, what: impl Fn(&Counters) -> bool) -> Counters {
        for _ in 0..SOON.as_millis() / 10 {
            let counters = self.source().counters;
            if what(&counters) {
                return counters;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the counters did not become as wanted: {:?}", self.source());
    }

    pub fn source(&self) -> SourceFigures {
        self.running.status.sources().remove(0).1
    }

    pub fn service(&self, name: &str) -> ServiceFigures {
        let all = self.running.status.services();
        all.into_iter().find(|(service, _, _)| &**service == name).expect("the service is followed").2
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(SOON, self.running.task).await.expect("it stops soon").expect("it stops well");
    }

    fn note(&mut self, update: CatalogUpdate) {
        match update {
            CatalogUpdate::Service(state) => {
                self.states.insert(state.name.to_string(), state);
            }
            CatalogUpdate::Gone(name) => {
                self.states.remove(&*name);
            }
        }
    }
}

pub fn wanted(services: &[&str]) -> Wanted {
    Wanted { services: services.iter().map(|name| (*name).into()).collect(), ..Wanted::default() }
}

/// The IDs of a state's instances, sorted.
pub fn ids(state: &ServiceState) -> Vec<&str> {
    let mut ids: Vec<&str> = state.instances.iter().map(|instance| &*instance.id).collect();
    ids.sort_unstable();
    ids
}

pub fn held(state: &ServiceState) -> usize {
    match state.note {
        Note::Trusted => 0,
        Note::Held { instances, .. } => instances,
    }
}
