//! The commands that this process prints beside examples: they ask itself, or read the files that it was started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::config::CatalogSource;
use crate::dry_run::command::Explain;

/// What such a command names.
#[derive(Clone, Debug)]
pub struct Told {
    files: Explain,
    /// Known once the listener is bound; never, where there is no admin side.
    admin: Arc<OnceLock<SocketAddr>>,
}

/// The file that people are told to write where the catalog is no file (`pointsman catalog > catalog.yaml`).
const CATALOG: &str = "catalog.yaml";

impl Told {
    /// For these rule files, this catalog and this place of the proxy.
    #[must_use]
    pub fn new(rules: &[PathBuf], catalog: &CatalogSource, region: Option<&str>, zone: Option<&str>) -> Self {
        let catalog = match catalog {
            CatalogSource::File(path) => path.as_str(),
            CatalogSource::Consul(_) => CATALOG,
        };
        let place = [("region", region), ("zone", zone)];
        Self { files: Explain::new(rules, Some(Path::new(catalog)), &place), admin: Arc::default() }
    }

    /// The admin side is bound to this address.
    pub fn admin_is(&self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            // It is bound once.
            let _ = self.admin.set(address);
        }
    }

    /// By the live proxy, and by the files: before and after.
    #[must_use]
    pub fn pair(&self) -> Box<dyn Fn() -> [Explain; 2] + Send + Sync> {
        let told = self.clone();
        Box::new(move || {
            let live = told.admin.get().map_or_else(|| told.files.clone(), |admin| Explain::live(&admin.to_string()));
            [live, told.files.clone()]
        })
    }
}
