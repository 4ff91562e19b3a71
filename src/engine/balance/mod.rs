//! Balancing: one endpoint of a pool, one file an algorithm.
