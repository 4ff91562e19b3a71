//! A table from files: rules and a catalog, everybody healthy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load;
use crate::engine::format::catalog_file::{self, CatalogFile};
use crate::engine::label::Labels;
use crate::engine::locality::Place;
use crate::engine::route::Router;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use crate::engine::table::{Table, TableError};
use crate::engine::time::Millis;

/// Why there is no table. Each is a text for people, with every problem of its kind.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Files that could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// Findings with their places.
    #[error("{0}")]
    Wrong(String),
    /// Rules and catalog do not go together.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Reads rules and catalog and resolves one against the other. Blocking.
///
/// # Errors
/// Everything that is wrong with the input.
pub fn from_files(rules: &[PathBuf], catalog: &Path, place: Place) -> Result<Table, AssembleError> {
    let router = router(rules)?;
    let catalog = catalog_at(catalog)?;
    Ok(table(router, &catalog, place)?)
}

/// The router of the rules at some paths. Blocking.
///
/// # Errors
/// Everything that is wrong with the rules.
pub fn router(rules: &[PathBuf]) -> Result<Router, AssembleError> {
    let loaded = load::rules(rules);
    if !loaded.unreadable.is_empty() {
        let all: Vec<String> = loaded.unreadable.iter().map(ToString::to_string).collect();
        return Err(AssembleError::Unreadable(all.join("\n")));
    }
    if loaded.diagnostics.has_errors() {
        return Err(AssembleError::Wrong(loaded.diagnostics.render()));
    }
    Router::compile(&loaded.rules).map_err(|out| AssembleError::Wrong(out.render()))
}

/// The catalog file at a path. Blocking.
///
/// # Errors
/// Everything that is wrong with it.
pub fn catalog_at(path: &Path) -> Result<CatalogFile, AssembleError> {
    let (sources, unreadable) = load::sources(&[path.to_owned()]);
    if let Some(error) = unreadable.first() {
        return Err(AssembleError::Unreadable(error.to_string()));
    }
    let [source] = sources.as_slice() else {
        return Err(AssembleError::Unreadable(format!("{} must be one catalog file", path.display())));
    };
    let (file, out) = catalog_file::parse(source);
    if out.has_errors() { Err(AssembleError::Wrong(out.render())) } else { Ok(file) }
}

/// The table that these give.
///
/// # Errors
/// See [`TableError`].
pub fn table(router: Router, catalog: &CatalogFile, place: Place) -> Result<Table, TableError> {
    let mut live = LiveSet::default();
    let services = catalog
        .services
        .iter()
        .map(|(name, instances)| ServiceSnapshot::build(Arc::clone(name), 1, instances.clone(), &mut live, Millis(0)));
    let snapshot = Snapshot::new(services.collect::<Vec<_>>());
    Table::build(1, snapshot, Arc::new(router), place, Millis(0))
}

/// Where the proxy stands, from `--region` and `--zone`.
#[must_use]
pub fn place(region: Option<&str>, zone: Option<&str>) -> Place {
    let pairs = [("region", region), ("zone", zone)];
    Place::new(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect::<Labels>())
}
