//! Formats that several commands read and write: catalog file, traffic line, explanation.
