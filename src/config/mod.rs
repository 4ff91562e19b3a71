//! The process's settings (never rules): layers as written, [`Settings`] as used.
//!
//! Flags beat the environment, which beats the file, which beats `CONSUL_*`, which beat the defaults. Every problem of
//! every layer is reported in one run, at the place where it was written.

mod consul;
mod flags;
mod layers;
mod listen;
mod read;
mod report;
mod scope;
mod settings;
mod value;

use std::path::Path;

use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span};

pub use consul::{Consul, ConsulTls, Disk, Hold, Mapping, Rates, Select, Subscription, Transport};
pub use flags::Flags;
pub use listen::{Alpn, Certificate, ClientTls, Listen, ListenTls, Passes, TlsVersion};
pub use report::{Origin, Report};
pub use settings::{
    AccessLog, Admin, Auto, Catalog, CatalogSource, Checks, DebugToken, Drain, Guard, GuardMode, HostHeader, Limits,
    Log, LogFormat, Metrics, PathText, Secret, Settings, Shadow, Upstream,
};

/// What was loaded, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As used.
    pub settings: Settings,
    /// For `--print-config`.
    pub report: Report,
}

/// Reads the file that the flags name, the given environment and the flags.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Diagnostics> {
    let mut out = Diagnostics::default();
    let environment: Vec<_> = environment.into_iter().collect();
    let mut layers = flags.layers();
    layers.extend(layers::environment(&environment, &mut out));
    layers.extend(flags.config.as_deref().and_then(|path| file(path, &mut out)));
    layers.extend(layers::consul(&environment));
    let (settings, report) = read::settings(&layers, &mut out);
    if out.has_errors() { Err(out) } else { Ok(Loaded { settings, report }) }
}

fn file(path: &Path, out: &mut Diagnostics) -> Option<layers::Layer> {
    let name = path.display().to_string();
    let text = if name == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    match text {
        Ok(text) => layers::Layer::of_text(Source::new(name, text), Origin::File, out),
        Err(error) => {
            let source = Source::new(name, "");
            out.push(Diagnostic::error("E900", &source, Span::default(), format!("cannot be read: {error}")));
            None
        }
    }
}

#[cfg(test)]
mod tests;
