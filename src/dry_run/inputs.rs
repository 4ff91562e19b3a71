//! What the dry runs start from: rules compiled, a catalog read, both made into a table; or every reason why not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::{self, Loaded, Unreadable};
use super::what_if::WhatIf;
use crate::engine::diagnostic::{Diagnostics, Severity};
use crate::engine::format::catalog_file::{self, CatalogFile};
use crate::engine::label::Labels;
use crate::engine::locality::Place;
use crate::engine::route::Router;
use crate::engine::rules::RuleSet;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use crate::engine::table::Table;
use crate::engine::time::Millis;

/// Rules ready for use.
#[derive(Clone, Debug)]
pub struct Rules {
    /// As written.
    pub set: RuleSet,
    /// As used.
    pub router: Arc<Router>,
    /// Where they came from, as given: for the commands that reports print.
    pub paths: Vec<PathBuf>,
}

/// Why an input cannot be used: everything of it at once.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", self.render().trim_end())]
pub struct Unusable {
    /// What is wrong inside.
    pub diagnostics: Diagnostics,
    /// What could not be read at all.
    pub unreadable: Vec<Unreadable>,
    /// What else stands in the way.
    pub reasons: Vec<String>,
}

/// Reads and compiles the rules at some paths. Blocking.
pub fn rules(paths: &[PathBuf]) -> Result<Rules, Unusable> {
    compile(load::rules(paths), paths)
}

/// Compiles what was loaded from some paths.
pub fn compile(loaded: Loaded, paths: &[PathBuf]) -> Result<Rules, Unusable> {
    let mut unusable = Unusable::of(loaded.diagnostics, loaded.unreadable);
    if !unusable.is_empty() {
        return Err(unusable);
    }
    if loaded.rules.files.is_empty() {
        unusable.reasons.push(format!("there is no rule file at {}", shown(paths)));
        return Err(unusable);
    }
    match Router::compile(&loaded.rules) {
        Ok(router) => Ok(Rules { set: loaded.rules, router: Arc::new(router), paths: paths.to_vec() }),
        Err(diagnostics) => Err(Unusable { diagnostics, ..Unusable::default() }),
    }
}

/// Reads a catalog file. Blocking.
pub fn catalog(path: &Path) -> Result<CatalogFile, Unusable> {
    let (sources, unreadable) = load::sources(&[path.to_owned()]);
    let Some(source) = sources.first() else { return Err(Unusable::of(Diagnostics::default(), unreadable)) };
    let (file, diagnostics) = catalog_file::parse(source);
    let unusable = Unusable::of(diagnostics, unreadable);
    if unusable.is_empty() { Ok(file) } else { Err(unusable) }
}

/// Rules and a catalog from the disk as the table of a proxy at `place`. Blocking.
///
/// # Errors
/// Everything that is wrong with either of them, or how they do not go together.
pub fn from_files(paths: &[PathBuf], at: &Path, place: Place) -> Result<Table, Unusable> {
    let (rules, catalog) = both(rules(paths), catalog(at))?;
    table(rules.router, &catalog, &WhatIf::default(), place)
}

/// The table that a proxy at `place` would publish for these rules and this catalog, everybody healthy.
///
/// # Errors
/// They do not go together: see [`crate::engine::table::TableError`].
pub fn table(router: Arc<Router>, catalog: &CatalogFile, what_if: &WhatIf, place: Place) -> Result<Table, Unusable> {
    let mut lives = LiveSet::default();
    let services: Vec<_> = catalog
        .services
        .iter()
        .map(|(name, instances)| {
            let instances = what_if.apply(name, instances);
            ServiceSnapshot::build(Arc::clone(name), 1, instances, &mut lives, Millis(0))
        })
        .collect();
    Table::build(1, Snapshot::new(services), router, place, Millis(0))
        .map_err(|error| Unusable::because(error.to_string()))
}

/// Where the proxy stands, from `--region` and `--zone`.
#[must_use]
pub fn place(region: Option<&str>, zone: Option<&str>) -> Place {
    let pairs = [("region", region), ("zone", zone)];
    Place::new(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect::<Labels>())
}

/// Both inputs, or what is wrong with either.
pub fn both<A, B>(one: Result<A, Unusable>, other: Result<B, Unusable>) -> Result<(A, B), Unusable> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => {
            let mut all = one.err().unwrap_or_default();
            all.merge(other.err().unwrap_or_default());
            Err(all)
        }
    }
}

impl Unusable {
    /// What stands in the way among these; warnings do not.
    #[must_use]
    pub fn of(diagnostics: Diagnostics, unreadable: Vec<Unreadable>) -> Self {
        let errors = diagnostics.0.into_iter().filter(|found| found.severity == Severity::Error).collect();
        Self { diagnostics: Diagnostics(errors), unreadable, reasons: Vec::new() }
    }

    /// One reason.
    #[must_use]
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], ..Self::default() }
    }

    /// Takes over what else is wrong.
    pub fn merge(&mut self, other: Self) {
        self.diagnostics.0.extend(other.diagnostics.0);
        self.unreadable.extend(other.unreadable);
        self.reasons.extend(other.reasons);
    }

    /// Whether there is nothing against it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.0.is_empty() && self.unreadable.is_empty() && self.reasons.is_empty()
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = self.diagnostics.render();
        for path in &self.unreadable {
            out.push_str(&format!("error: {path}\n"));
        }
        for reason in &self.reasons {
            out.push_str(&format!("error: {reason}\n"));
        }
        out
    }
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let empty = rules(&[folder.path().to_owned()]).unwrap_err();
        assert!(empty.render().contains("there is no rule file"), "{}", empty.render());
        let broken = folder.path().join("web.yaml");
        std::fs::write(&broken, "servce: web\n").unwrap();
        let wrong = rules(&[broken, folder.path().join("none.yaml")]).unwrap_err();
        assert!(wrong.render().contains("did you mean `service`?") && wrong.render().contains("none.yaml"));
        assert!(catalog(&folder.path().join("none.yaml")).unwrap_err().render().contains("none.yaml"));
    }
}
