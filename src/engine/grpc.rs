//! The statuses of gRPC: their names in rule files, and what they say about an instance.

use super::health::Evidence;

/// Statuses by number, as a rule file writes them (gRPC's `statuscodes.md`, lower case). 0 is no reason to try again.
pub const NAMES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// A status that has a name.
#[must_use]
pub fn named(name: &str) -> Option<u8> {
    NAMES.iter().position(|known| *known == name).map(|at| at as u8)
}

/// What a status says about the instance that gave it: as the HTTP status that gRPC's mappings put beside it (Envoy's
/// `grpcToHttpStatus`), but that `unimplemented` is the caller's doing. Numbers without a name count as `unknown`.
#[must_use]
pub fn evidence(status: u8) -> Evidence {
    match status {
        4 => Evidence::Status(504),
        8 => Evidence::Status(429),
        14 => Evidence::Status(503),
        2 | 13 | 15 | 17.. => Evidence::Status(500),
        0 | 1 | 3 | 5..=7 | 9..=12 | 16 => Evidence::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_s_fault_says_nothing_against_the_instance() {
        for name in ["ok", "cancelled", "invalid_argument", "not_found", "unimplemented", "unauthenticated"] {
            assert_eq!(evidence(named(name).unwrap()), Evidence::Success, "{name}");
        }
        assert_eq!(evidence(named("unavailable").unwrap()), Evidence::Status(503));
        assert!(!evidence(named("resource_exhausted").unwrap()).is_failure(), "a healthy instance that asks for less");
        assert!(evidence(named("internal").unwrap()).is_failure() && evidence(200).is_failure());
    }
}
