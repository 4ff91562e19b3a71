//! The trace of a decision: a no-op on the live path, a recorder for `explain`.
