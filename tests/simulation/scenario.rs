//! What goes wrong, and when: calm for 5 s, a fault for 20 s, calm again for 15 s.

use super::fleet::Mode;
use super::time::{Micros, SECOND};

/// When the fault begins.
pub const BEGINS: Micros = 5 * SECOND;
/// When it is over.
pub const ENDS: Micros = 25 * SECOND;
/// When requests stop coming.
pub const LAST: Micros = 40 * SECOND;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    OneDead,
    OneSlow,
    OneFlapping,
    Fast500,
    ZoneLost,
    OwnZoneLost,
    CanaryBad,
    RollingRestart,
    AllBad,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OneDead,
        Self::OneSlow,
        Self::OneFlapping,
        Self::Fast500,
        Self::ZoneLost,
        Self::OwnZoneLost,
        Self::CanaryBad,
        Self::RollingRestart,
        Self::AllBad,
    ];

    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneDead => "one dead",
            Self::OneSlow => "one 20 × slower",
            Self::OneFlapping => "one flapping (2 s dead, 2 s well)",
            Self::Fast500 => "one answering 500 at once",
            Self::ZoneLost => "one of two zones lost (nothing comes back)",
            Self::OwnZoneLost => "the preferred zone lost (nothing comes back)",
            Self::CanaryBad => "whole canary answering 503, split 50/50",
            Self::RollingRestart => "rolling restart (each dead for 1 s)",
            Self::AllBad => "all answering 503",
        }
    }

    /// Requests come to a split of two halves: the even instances are the canary.
    pub fn is_split(self) -> bool {
        self == Self::CanaryBad
    }

    /// Whether an instance is hit at all.
    pub fn hits(self, instance: usize, size: usize) -> bool {
        match self {
            Self::OneDead | Self::OneSlow | Self::OneFlapping | Self::Fast500 => instance == 0,
            Self::ZoneLost | Self::OwnZoneLost => in_own_zone(instance, size),
            Self::CanaryBad => is_canary(instance),
            Self::RollingRestart | Self::AllBad => true,
        }
    }

    /// What an instance does at a moment.
    pub fn mode(self, instance: usize, size: usize, at: Micros) -> Mode {
        if !(BEGINS..ENDS).contains(&at) || !self.hits(instance, size) {
            return Mode::Well;
        }
        let since = at - BEGINS;
        match self {
            Self::OneDead => Mode::Dead,
            Self::OneSlow => Mode::Slow(20),
            Self::OneFlapping if (since / (2 * SECOND)).is_multiple_of(2) => Mode::Dead,
            Self::OneFlapping => Mode::Well,
            Self::Fast500 => Mode::Fails(500),
            Self::ZoneLost | Self::OwnZoneLost => Mode::Lost,
            Self::CanaryBad | Self::AllBad => Mode::Fails(503),
            Self::RollingRestart => {
                let turn = instance as u64 * (ENDS - BEGINS - SECOND) / size.max(2) as u64;
                if (turn..turn + SECOND).contains(&since) { Mode::Dead } else { Mode::Well }
            }
        }
    }
}

/// The even ones are the canary.
pub fn is_canary(instance: usize) -> bool {
    instance.is_multiple_of(2)
}

/// Two zones; the first half stands in the proxy's own.
pub fn in_own_zone(instance: usize, size: usize) -> bool {
    instance < size / 2
}

/// Requests a second that come to a pool of this size.
pub fn rate(size: usize) -> u64 {
    match size {
        0..=2 => 200,
        3..=10 => 400,
        _ => 1_000,
    }
}
