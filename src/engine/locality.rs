//! Locality: levels and spill.
