//! The flags of `run` that say the same as the configuration file, so that no file is needed.

use std::path::PathBuf;

use clap::Args;

use super::layers::Layer;
use super::report::Origin;

/// Flags; they beat the environment and the file.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// The configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients connect; repeatable
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// The operators' listener
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// The Consul agent
    #[arg(long, value_name = "URL", conflicts_with = "catalog")]
    pub consul: Option<String>,
    /// A catalog file in place of Consul
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<String>,
    /// The rule files: a folder or a file
    #[arg(long, value_name = "PATH")]
    pub rules: Option<String>,
    /// Rule files that are evaluated beside those in force, and change nothing
    #[arg(long, value_name = "PATH")]
    pub shadow_rules: Option<String>,
    /// The proxy's own region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// The proxy's own zone
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Data-plane threads, or `auto`
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
}

impl Flags {
    /// A layer a flag.
    pub(super) fn layers(&self) -> Vec<Layer> {
        let Self { config: _, listen, admin, consul, catalog, rules, shadow_rules, region, zone, workers } = self;
        let mut layers = Vec::new();
        if !listen.is_empty() {
            layers.push(Layer::of_texts(&["listen"], "--listen", listen, Origin::Flag("--listen")));
        }
        for (path, name, value) in [
            (&["admin", "address"][..], "--admin", admin),
            (&["catalog", "consul", "address"], "--consul", consul),
            (&["catalog", "file"], "--catalog", catalog),
            (&["rules"], "--rules", rules),
            (&["shadow", "rules"], "--shadow-rules", shadow_rules),
            (&["region"], "--region", region),
            (&["zone"], "--zone", zone),
            (&["workers"], "--workers", workers),
        ] {
            layers.extend(value.as_deref().map(|value| Layer::of_text_value(path, name, value, Origin::Flag(name))));
        }
        layers
    }
}
