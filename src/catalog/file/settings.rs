//! Settings of the file source.

use std::path::PathBuf;

/// `catalog: {file: PATH}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The catalog file (YAML or JSON, CLI.md). Required.
    pub path: PathBuf,
}
