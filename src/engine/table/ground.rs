//! What a table was made from, to tell whether another one was made from the same.

use std::sync::Arc;

use super::Table;
use crate::engine::route::Router;
use crate::engine::snapshot::ServiceSnapshot;

/// The rules, and the instances of the services that they are for. Health is not in it: most tables differ in that
/// alone.
#[derive(Clone, Debug)]
pub struct Ground {
    router: Arc<Router>,
    /// Of each of the router's files.
    services: Vec<Option<Arc<ServiceSnapshot>>>,
}

impl Table {
    /// What it was made from.
    #[must_use]
    pub fn ground(&self) -> Ground {
        let services = self.files.iter().map(|file| file.service.clone()).collect();
        Ground { router: Arc::clone(&self.router), services }
    }
}

impl Ground {
    /// Whether this table was made from the same rules and instances.
    #[must_use]
    pub fn is_of(&self, table: &Table) -> bool {
        let place = |service: &Option<Arc<ServiceSnapshot>>| service.as_ref().map(Arc::as_ptr);
        let services = table.files.iter().map(|file| place(&file.service));
        Arc::ptr_eq(&self.router, &table.router) && self.services.iter().map(place).eq(services)
    }
}
