//! What the configuration's `catalog:` section holds.

use super::{consul, file};

/// The `catalog:` section: any number of the kinds at once; their instances of the same service go together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// A Consul cluster.
    pub consul: Option<consul::Settings>,
    /// A catalog file.
    pub file: Option<file::Settings>,
}
