//! The table: snapshot, router and resolved pools behind one pointer.
