//! The active check's verdict: rise and fall. It is apart from passive ejection; both must agree for traffic.

use serde::Serialize;

/// What the active check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not checked yet.
    #[default]
    Unknown,
    /// Passing.
    Passing,
    /// Failing: not routable.
    Failing,
}

/// The verdict and the answers in a row that speak against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckState {
    /// The verdict in force.
    pub verdict: Verdict,
    /// Answers in a row that differ from it.
    pub against: u32,
}

/// One answer of the check. The very first pass counts at once; failing needs `fall` in a row even at first,
/// so that a slow start is not an outage; back to passing needs `rise` in a row.
#[must_use]
pub fn step(state: CheckState, passed: bool, rise: u32, fall: u32) -> CheckState {
    let (wanted, needed) = match (state.verdict, passed) {
        (Verdict::Passing, true) | (Verdict::Failing, false) => return CheckState { against: 0, ..state },
        (Verdict::Unknown, true) => (Verdict::Passing, 1),
        (Verdict::Failing, true) => (Verdict::Passing, rise.max(1)),
        (Verdict::Unknown | Verdict::Passing, false) => (Verdict::Failing, fall.max(1)),
    };
    let against = state.against.saturating_add(1);
    if against >= needed { CheckState { verdict: wanted, against: 0 } } else { CheckState { against, ..state } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: &[bool]) -> Verdict {
        answers.iter().fold(CheckState::default(), |state, passed| step(state, *passed, 2, 3)).verdict
    }

    #[test]
    fn the_verdict_follows_rise_and_fall() {
        assert_eq!(after(&[true]), Verdict::Passing);
        assert_eq!(after(&[false, false]), Verdict::Unknown);
        assert_eq!(after(&[false, false, false]), Verdict::Failing);
        assert_eq!(after(&[true, false, false, true, false, false]), Verdict::Passing);
        assert_eq!(after(&[true, false, false, false]), Verdict::Failing);
        assert_eq!(after(&[true, false, false, false, true]), Verdict::Failing);
        assert_eq!(after(&[true, false, false, false, true, true]), Verdict::Passing);
    }
}
