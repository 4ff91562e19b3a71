//! Formats that several commands read and write: catalog file, traffic line, explanation, trace.

pub mod catalog_file;
pub mod explanation;
mod explanation_text;
pub mod limits;
pub mod trace_line;
pub mod traffic;
