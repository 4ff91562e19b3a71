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

/// How long a certificate and a key that do not go together (yet) may take to: files are replaced one by one.
const HALF_WRITTEN: Duration = Duration::from_millis(300);

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
        loop {
            tokio::select! {
                () = watch.changed() => {}
                Ok(()) = again.changed() => {}
            }
            let mut read = reload(&terminator).await;
            if read.is_err() {
                tokio::time::sleep(HALF_WRITTEN).await;
                read = reload(&terminator).await;
            }
            match read {
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

impl Source for Certificates {
    fn collect(&self, out: &mut Samples) {
        for (listener, terminator) in &self.0 {
            let listener = listener.to_string();
            for certificate in terminator.certificates().all() {
                let labels = [listener.as_str(), &certificate.name()];
                out.gauge(&names::TLS_EXPIRY, &labels, seconds_until(certificate.expires).floor());
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
                    })
                })
                .collect();
            json!({"listener": listener.to_string(), "certificates": certificates})
        };
        json!({"listeners": self.0.iter().map(shown).collect::<Vec<_>>()})
    }
}
