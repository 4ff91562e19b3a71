//! Selectors: an expression over an instance, answered at publication for all instances of a service at once.
