//! Formats that several commands read and write: catalog file, traffic line, explanation.

pub mod catalog_file;
pub mod explanation;
mod explanation_text;
pub mod limits;
pub mod traffic;
