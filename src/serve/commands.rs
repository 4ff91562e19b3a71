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
    catalog: PathBuf,
    region: Option<String>,
    zone: Option<String>,
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
        Self {
            files: Explain::new(rules, Some(Path::new(catalog)), &place),
            catalog: catalog.into(),
            region: region.map(str::to_owned),
            zone: zone.map(str::to_owned),
            admin: Arc::default(),
        }
    }

    /// The admin side is bound to this address.
    pub fn admin_is(&self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            // It is bound once.
            let _ = self.admin.set(address);
        }
    }

    /// By the live proxy.
    #[must_use]
    pub fn live(&self) -> Arc<dyn Fn() -> Explain + Send + Sync> {
        let told = self.clone();
        Arc::new(move || told.admin.get().map_or_else(|| told.files.clone(), |admin| Explain::live(&admin.to_string())))
    }

    /// By other rule files over the same catalog.
    #[must_use]
    pub fn files_of(&self, rules: &[PathBuf]) -> Explain {
        Explain::new(rules, Some(&self.catalog), &self.place())
    }

    /// By the live proxy, and by the files: before and after.
    #[must_use]
    pub fn pair(&self) -> Box<dyn Fn() -> [Explain; 2] + Send + Sync> {
        let (live, files) = (self.live(), self.files.clone());
        Box::new(move || [live(), files.clone()])
    }

    fn place(&self) -> [(&str, Option<&str>); 2] {
        [("region", self.region.as_deref()), ("zone", self.zone.as_deref())]
    }
}
