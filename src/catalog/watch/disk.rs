//! The copy on disk for a warm start.
