//! Certificates in force: read again when a file changes or when told to, shown to operators, counted down in metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admin::handles::CertificatesView;
use crate::engine::diagnostic::Diagnostics;
use crate::files::FileWatch;
use crate::observe::metrics::{Samples, Source};
use crate::observe::names;
use crate::observe::reloads::Reloads;
use crate::server::tls::Terminator;
use crate::server::tls::certificate::Certificate;

/// How long a certificate, a key and an OCSP response that do not go together (yet) may take to: files are replaced one by one.
const HALF_WRITTEN: Duration = Duration::from_millis(300);

/// How often to look whether an OCSP response is over. Handshakes look each time; this is for whoever reads the log.
const STAPLES: Duration = Duration::from_secs(10);

/// The listeners that speak TLS, with their addresses as bound.
#[derive(Debug)]
pub struct Certificates(pub Vec<(SocketAddr, Arc<Terminator>)>);

impl Certificates {
    /// Reads the certificates of a listener again whenever one of its files changes, or when told to.
    pub async fn follow(
        listener: SocketAddr,
        terminator: Arc<Terminator>,
        mut again: watch::Receiver<()>,
        reloads: Arc<Reloads>,
    ) {
        let mut watch = FileWatch::new(terminator.settings().files());
        let mut unstapled = terminator.unstapled();
        // They were read before anybody watched them: what changed in between is seen by nobody else.
        let mut unseen = true;
        loop {
            let at_start = std::mem::take(&mut unseen);
            tokio::select! {
                () = std::future::ready(()), if at_start => {}
                () = watch.changed() => {}
                Ok(()) = again.changed() => {}
                () = tokio::time::sleep(STAPLES) => {
                    tell_lapsed(listener, &terminator, &mut unstapled);
                    continue;
                }
            }
            let mut read = reload(&terminator).await;
            if read.is_err() || !terminator.unstapled().is_empty() {
                tokio::time::sleep(HALF_WRITTEN).await;
                read = reload(&terminator).await;
            }
            unstapled = terminator.unstapled();
            match read {
                Ok(()) if at_start => {}
                Ok(()) => {
                    let count = terminator.certificates().all().len();
                    let words = format!("listener {listener}: {count} certificates were read again");
                    reloads.accepted("certificates", words, Diagnostics::default());
                    tell_doubts(listener, &terminator);
                }
                Err(error) => {
                    let words = format!(
                        "listener {listener}: {error}; what was in force stays; mend the file, it is read again by itself"
                    );
                    reloads.refused("certificates", words, Diagnostics::default());
                }
            }
        }
    }
}

/// Says what whoever runs us should look at.
pub fn tell_doubts(listener: SocketAddr, terminator: &Terminator) {
    for doubt in terminator.doubts() {
        tracing::warn!(%listener, "{doubt}");
    }
}

/// Says, once, which OCSP responses are no longer stapled. `known`: what was said before.
fn tell_lapsed(listener: SocketAddr, terminator: &Terminator, known: &mut Vec<String>) {
    let unstapled = terminator.unstapled();
    for doubt in unstapled.iter().filter(|doubt| !known.contains(doubt)) {
        tracing::warn!(%listener, "{doubt}");
    }
    *known = unstapled;
}

async fn reload(terminator: &Arc<Terminator>) -> Result<(), String> {
    let terminator = Arc::clone(terminator);
    let read = tokio::task::spawn_blocking(move || terminator.reload()).await;
    read.unwrap_or_else(|error| Err(format!("reading them failed: {error}")))
}

/// Seconds from now; negative: ago.
fn seconds_until(at: SystemTime) -> f64 {
    let now = SystemTime::now();
    at.duration_since(now)
        .map_or_else(|_| -now.duration_since(at).unwrap_or_default().as_secs_f64(), |d| d.as_secs_f64())
}

/// Seconds until the OCSP response that is stapled is over, 0 while none is; `None`: no file of one is named.
fn stapled_for(certificate: &Certificate) -> Option<f64> {
    let staple = certificate.staple.as_ref()?.as_ref();
    let validity = staple.ok().map(|staple| staple.validity).filter(|validity| validity.covers(SystemTime::now()));
    Some(validity.map_or(0.0, |validity| seconds_until(validity.until).floor().max(0.0)))
}

impl Source for Certificates {
    fn collect(&self, out: &mut Samples) {
        for (listener, terminator) in &self.0 {
            let listener = listener.to_string();
            for certificate in terminator.certificates().all() {
                let labels = [listener.as_str(), &certificate.name()];
                out.gauge(&names::TLS_EXPIRY, &labels, seconds_until(certificate.expires).floor());
                if let Some(left) = stapled_for(certificate) {
                    out.gauge(&names::TLS_OCSP_EXPIRY, &labels, left);
                }
            }
        }
    }
}

impl CertificatesView for Certificates {
    fn show(&self) -> Value {
        let shown = |(listener, terminator): &(SocketAddr, Arc<Terminator>)| {
            let certificates = terminator.certificates();
            let certificates: Vec<Value> = certificates
                .all()
                .iter()
                .map(|certificate| {
                    let names = &certificate.names;
                    let wildcards = names.wildcards.iter().map(|name| format!("*.{name}"));
                    let addresses = names.addresses.iter().map(ToString::to_string);
                    let exact = names.exact.iter().map(ToString::to_string);
                    json!({
                        "names": exact.chain(wildcards).chain(addresses).collect::<Vec<_>>(),
                        "cert": certificate.files.cert,
                        "expires_in_seconds": seconds_until(certificate.expires).floor(),
                        "ocsp": certificate.files.ocsp,
                        "ocsp_expires_in_seconds": stapled_for(certificate),
                        "ocsp_unused": certificate.unstapled(SystemTime::now()),
                    })
                })
                .collect();
            json!({"listener": listener.to_string(), "certificates": certificates})
        };
        json!({"listeners": self.0.iter().map(shown).collect::<Vec<_>>()})
    }
}
