//! Active checks, run from the control plane. A verdict enters by the same door as passive evidence.

pub mod probe;
