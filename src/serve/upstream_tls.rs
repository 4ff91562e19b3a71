//! TLS towards instances on the control plane: files read before rules that name them are in force, read again when
//! they change, and loud words where nobody is checked.

use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::diagnostic::Diagnostics;
use crate::engine::route::{Router, RouterFile};
use crate::engine::upstream::Encryption;
use crate::files::FileWatch;
use crate::observe::metrics::Metrics;
use crate::observe::names;
use crate::observe::reloads::Reloads;
use crate::upstream::Trusts;
use crate::upstream::trust::Trust;

/// Reads what a router names and has not been read yet; every file that cannot be used, by service.
pub async fn prepare(trusts: &Trusts, router: &Router) -> Vec<String> {
    let mut wrong = Vec::new();
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

/// Says which services are reached without checking who answers, and counts it.
pub fn warn_of_unverified(router: &Router, metrics: &Metrics) {
    for file in &router.files {
        metrics.gauge(&names::UPSTREAM_UNVERIFIED, &[&file.service], f64::from(u8::from(is_unverified(file))));
    }
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
    loop {
        let all = trusts.all();
        for trust in all.iter().filter(|trust| !trust.is_loaded()) {
            report(load(trust).await, &reloads);
        }
        let mut watch = FileWatch::new(all.iter().flat_map(|trust| trust.files()).collect());
        tokio::select! {
            () = watch.changed() => {}
            Ok(()) = again.changed() => {}
            () = trusts.grew.notified() => continue,
        }
        for trust in &all {
            report(load(trust).await, &reloads);
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
