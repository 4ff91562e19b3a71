//! The catalog file as a source: read at start, watched from then on.

mod settings;

pub use settings::Settings;
