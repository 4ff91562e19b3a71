//! Making tables: everything at once, or only what a change touches.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::heritage::Heritage;
use super::resolve::Resolving;
use super::{FilePools, Plan, Pool, PoolSelector, Table, TableError};
use crate::engine::expr::ast::Field;
use crate::engine::label::Text;
use crate::engine::locality::Place;
use crate::engine::route::{FileIdx, Router, RouterFile};
use crate::engine::selector::Selector;
use crate::engine::snapshot::{Bitset, Live, ServiceSnapshot, Snapshot};
use crate::engine::time::Millis;

impl Table {
    /// A table of everything.
    pub fn build(
        generation: u64,
        snapshot: Snapshot,
        router: Arc<Router>,
        place: Place,
        now: Millis,
    ) -> Result<Self, TableError> {
        Self::build_after(None, generation, snapshot, router, place, now)
    }

    /// A table of everything that takes over from another one what outlives a change of rules.
    fn build_after(
        before: Option<&Self>,
        generation: u64,
        snapshot: Snapshot,
        router: Arc<Router>,
        place: Place,
        now: Millis,
    ) -> Result<Self, TableError> {
        let router = match router.expanded(snapshot.services().iter().map(|service| &service.name)) {
            Ok(expanded) => expanded.map_or(router, Arc::new),
            Err(found) => return Err(TableError::Expanding(found.render())),
        };
        let plan = Arc::new(Plan::of(&router, None)?);
        let files = Vec::with_capacity(router.files.len());
        let mut table = Self { generation, published: now, snapshot, router, files, place, plan };
        table.files = (0..table.router.files.len() as FileIdx)
            .map(|file| table.resolve(file, before).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(table)
    }

    /// One service changed; all else is shared. The error keeps the file's last pools, as [`Table::with_services`].
    #[must_use]
    pub fn with_service(&self, generation: u64, service: Arc<ServiceSnapshot>, now: Millis) -> (Self, Vec<TableError>) {
        self.with_services(generation, vec![service], &[], now)
    }

    /// One service left the catalog.
    #[must_use]
    pub fn without_service(&self, generation: u64, service: &Text, now: Millis) -> Self {
        self.with_services(generation, Vec::new(), std::slice::from_ref(service), now).0
    }

    /// Some services changed and some are gone; all else is shared. A file whose pools cannot be resolved any more
    /// keeps its last ones, with the instances of then; its error is in the list.
    #[must_use]
    pub fn with_services(
        &self,
        generation: u64,
        changed: Vec<Arc<ServiceSnapshot>>,
        gone: &[Text],
        now: Millis,
    ) -> (Self, Vec<TableError>) {
        let mut names: Vec<Text> = changed.iter().map(|service| &service.name).chain(gone).cloned().collect();
        names.sort_unstable();
        names.dedup();
        let came = self.router.has_stars() && names.iter().any(|name| self.snapshot.service(name).is_none());
        let snapshot = self.snapshot.with_services(changed, gone);
        let mut table = Self { snapshot, ..self.next(generation, now) };
        let mut errors = Vec::new();
        if came || (self.router.has_stars() && !gone.is_empty()) {
            errors.extend(table.expand().err());
        }
        for name in &names {
            for file in table.files_of(name) {
                match table.resolve(file, Some(self)) {
                    Ok(pools) => table.files[file as usize] = Arc::new(pools),
                    Err(error) => errors.push(error),
                }
            }
        }
        (table, errors)
    }

    /// Other rules over the same instances.
    pub fn with_router(&self, generation: u64, router: Arc<Router>, now: Millis) -> Result<Self, TableError> {
        Self::build_after(Some(self), generation, self.snapshot.clone(), router, self.place.clone(), now)
    }

    /// Live states moved: caps, minimums and levels of the pools that hold them are computed anew.
    #[must_use]
    pub fn with_health(&self, generation: u64, changed: &[Arc<Live>], now: Millis) -> Self {
        let mut by_service: BTreeMap<&Text, FxHashSet<u64>> = BTreeMap::new();
        for live in changed {
            by_service.entry(&live.service).or_default().insert(live.id);
        }
        let mut table = self.next(generation, now);
        for (name, ids) in by_service {
            for file in table.files_of(name) {
                let old = &table.files[file as usize];
                let mut touched = Bitset::none(old.endpoints().len());
                for (at, endpoint) in old.endpoints().iter().enumerate() {
                    if ids.contains(&endpoint.live.id) {
                        touched.insert(at as u32);
                    }
                }
                if !touched.is_empty() {
                    let holds = |pool: &Pool| pool.members.iter().any(|member| touched.contains(*member));
                    let refreshed = table.resolving(file).refreshed(old, holds);
                    table.files[file as usize] = Arc::new(refreshed);
                }
            }
        }
        table
    }

    /// Time went by: levels that have been back for `failback` take their loads again. See [`Table::due`].
    #[must_use]
    pub fn with_time(&self, generation: u64, now: Millis) -> Self {
        let mut table = self.next(generation, now);
        for file in 0..table.files.len() {
            let old = &table.files[file];
            if old.due <= now {
                let failback = table.router.files[file].locality.failback;
                let is_due =
                    |pool: &Pool| pool.past.iter().any(|past| past.due(failback).is_some_and(|due| due <= now));
                table.files[file] = Arc::new(table.resolving(file as FileIdx).refreshed(old, is_due));
            }
        }
        table
    }

    /// The next table, all parts shared.
    fn next(&self, generation: u64, now: Millis) -> Self {
        Self {
            generation,
            published: now,
            snapshot: self.snapshot.clone(),
            router: Arc::clone(&self.router),
            files: self.files.clone(),
            place: self.place.clone(),
            plan: Arc::clone(&self.plan),
        }
    }

    /// Takes up what the services that there are now make of files for every service. All else is shared.
    fn expand(&mut self) -> Result<(), TableError> {
        let services = self.snapshot.services().iter().map(|service| &service.name);
        let expanded = self.router.expanded(services).map_err(|found| TableError::Expanding(found.render()))?;
        let Some(router) = expanded else { return Ok(()) };
        let before = Arc::clone(&self.router);
        let plan = Plan::of(&router, Some((&before, &self.plan)))?;
        let known: FxHashMap<*const RouterFile, &Arc<FilePools>> =
            before.files.iter().map(Arc::as_ptr).zip(&self.files).collect();
        let mut next = Self { router: Arc::new(router), plan: Arc::new(plan), files: Vec::new(), ..self.clone_parts() };
        let mut files = Vec::with_capacity(next.router.files.len());
        for (at, file) in next.router.files.iter().enumerate() {
            files.push(match known.get(&Arc::as_ptr(file)) {
                Some(pools) => Arc::clone(pools),
                None => Arc::new(next.resolve(at as FileIdx, Some(self))?),
            });
        }
        next.files = files;
        *self = next;
        Ok(())
    }

    fn clone_parts(&self) -> Self {
        self.next(self.generation, self.published)
    }

    /// Files for a service.
    fn files_of(&self, service: &str) -> Vec<FileIdx> {
        self.plan.by_service.get(service).cloned().unwrap_or_default()
    }

    fn resolve(&self, file: FileIdx, before: Option<&Self>) -> Result<FilePools, TableError> {
        let resolving = self.resolving(file);
        let service = &resolving.file.service;
        let heritage = before.map_or_else(Heritage::default, |before| {
            let files = before.plan.by_service.get(service).into_iter().flatten();
            Heritage::of(files.map(|file| &*before.files[*file as usize]))
        });
        resolving.all(self.snapshot.service(service).cloned(), &heritage)
    }

    pub(super) fn resolving(&self, file: FileIdx) -> Resolving<'_> {
        let selectors = &self.plan.selectors[file as usize];
        Resolving {
            at: file,
            file: &self.router.files[file as usize],
            selectors,
            place: &self.place,
            now: self.published,
        }
    }
}

impl Plan {
    /// What follows from a router; what follows from files of the one before is shared.
    fn of(router: &Router, before: Option<(&Router, &Self)>) -> Result<Self, TableError> {
        let known: FxHashMap<*const RouterFile, &Arc<[PoolSelector]>> = before
            .map(|(router, plan)| router.files.iter().map(Arc::as_ptr).zip(&plan.selectors).collect())
            .unwrap_or_default();

        let mut by_service: FxHashMap<Text, Vec<FileIdx>> = FxHashMap::default();
        let mut selectors = Vec::with_capacity(router.files.len());
        for (at, file) in router.files.iter().enumerate() {
            by_service.entry(Arc::clone(&file.service)).or_default().push(at as FileIdx);
            selectors.push(match known.get(&Arc::as_ptr(file)) {
                Some(known) => Arc::clone(known),
                None => compile(file)?,
            });
        }
        Ok(Self { selectors, by_service })
    }
}

fn compile(file: &RouterFile) -> Result<Arc<[PoolSelector]>, TableError> {
    file.pools
        .iter()
        .map(|pool| {
            let Some(expr) = &pool.select else { return Ok(PoolSelector { select: None, isolated: false }) };
            let mut mentioned = false;
            if let Some(lanes) = &file.lanes {
                expr.fields(&mut |field| mentioned |= matches!(field, Field::Label(key) if *key == lanes.label));
            }
            let select = Selector::compile(expr).map_err(|why| TableError::Selector {
                service: Arc::clone(&file.service),
                pool: Arc::clone(&pool.name),
                why,
            })?;
            Ok(PoolSelector { select: Some(select), isolated: file.lanes.is_some() && !mentioned })
        })
        .collect()
}
