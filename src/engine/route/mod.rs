//! Routing: rule set to router (as used); request to decision.
