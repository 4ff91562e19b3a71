//! TLS towards instances on the control plane: files read before rules that name them are in force, read again when
//! they change, and loud words where nobody is checked.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::engine::diagnostic::Diagnostics;
use crate::engine::route::{Router, RouterFile};
use crate::engine::table::Table;
use crate::engine::upstream::{Encryption, UpstreamTls};
use crate::files::FileWatch;
use crate::observe::metrics::{Samples, Source};
use crate::observe::names;
use crate::observe::reloads::Reloads;
use crate::upstream::Trusts;
use crate::upstream::trust::Trust;

/// Reads what a router names and has not been read yet, and what a label may ask for (`scheme: https`): a request waits for
/// no file. Returns every file that cannot be used, by service; of a label's, nobody may ever have need.
pub async fn prepare(trusts: &Trusts, router: &Router) -> Vec<String> {
    let mut wrong = Vec::new();
    let by_label = UpstreamTls::default();
    if router.files.iter().any(|file| file.upstream.tls.is_none()) && !trusts.knows(&by_label) {
        let trust = Arc::new(Trust::new(by_label));
        match load(&trust).await {
            Ok(()) => trusts.add(trust),
            Err(error) => tracing::debug!(%error, "instances whose label says https cannot be checked"),
        }
    }
    for file in &router.files {
        let Some(Encryption::On(tls)) = &file.upstream.tls else { continue };
        let trust = trusts.of(tls);
        if !trust.is_loaded()
            && let Err(error) = load(&trust).await
        {
            wrong.push(format!("service {}: `upstream.tls`: {error}", file.service));
        }
    }
    wrong
}

/// Forgets what the rules in force do not name.
pub fn forget(trusts: &Trusts, router: &Router) {
    let by_label = UpstreamTls::default();
    let named = |tls: &UpstreamTls| {
        *tls == by_label
            || router.files.iter().any(|file| matches!(&file.upstream.tls, Some(Encryption::On(own)) if own == tls))
    };
    trusts.retain(named);
}

/// Whether a service is reached without checking who answers, by the rules in force.
#[derive(Debug)]
pub struct Unverified(pub Arc<ArcSwap<Table>>);

impl Source for Unverified {
    fn collect(&self, out: &mut Samples) {
        for file in &self.0.load().router.files {
            out.gauge(&names::UPSTREAM_UNVERIFIED, &[&file.service], f64::from(u8::from(is_unverified(file))));
        }
    }
}

/// Says which services are reached without checking who answers.
pub fn warn_of_unverified(router: &Router) {
    for service in unverified(router) {
        tracing::warn!(
            %service,
            "`upstream.tls.verify` is false: whoever answers at an instance's address is believed, whatever its certificate"
        );
    }
}

/// The services that are reached without checking who answers.
pub fn unverified(router: &Router) -> impl Iterator<Item = &str> {
    router.files.iter().filter(|file| is_unverified(file)).map(|file| &*file.service)
}

/// What `/ready` says of such a service.
#[must_use]
pub fn note(service: &str) -> String {
    format!("service {service}: `upstream.tls.verify` is false: whoever answers at an instance's address is believed")
}

fn is_unverified(file: &RouterFile) -> bool {
    matches!(&file.upstream.tls, Some(Encryption::On(tls)) if !tls.verify)
}

/// Reads files again when they change or when told to, and those that a label made necessary.
pub async fn follow(trusts: Arc<Trusts>, mut again: watch::Receiver<()>, reloads: Arc<Reloads>) {
    let files = |all: &[Arc<Trust>]| all.iter().flat_map(|trust| trust.files()).collect();
    let mut known: Vec<Arc<Trust>> = Vec::new();
    let mut watch = FileWatch::new(Vec::new());
    loop {
        let all = trusts.all();
        watch = watch.widened(files(&all));
        // Those too that were read before anybody watched them: what changed in between is seen by nobody else.
        for trust in all.iter().filter(|trust| !known.iter().any(|known| Arc::ptr_eq(known, trust))) {
            let first = !trust.is_loaded();
            let read = load(trust).await;
            if first || read.is_err() {
                report(read, &reloads);
            }
        }
        known = all;
        tokio::select! {
            () = watch.changed() => {}
            Ok(()) = again.changed() => {}
            () = trusts.grew.notified() => continue,
        }
        for trust in trusts.all() {
            report(load(&trust).await, &reloads);
        }
    }
}

fn report(read: Result<(), String>, reloads: &Reloads) {
    match read {
        Ok(()) => reloads.accepted("upstream_tls", "files towards instances were read", Diagnostics::default()),
        Err(error) => {
            let words = format!("{error}; what was in force stays");
            reloads.refused("upstream_tls", words, Diagnostics::default());
        }
    }
}

async fn load(trust: &Arc<Trust>) -> Result<(), String> {
    let trust = Arc::clone(trust);
    let read = tokio::task::spawn_blocking(move || trust.load()).await;
    read.unwrap_or_else(|error| Err(format!("reading them failed: {error}")))
}
