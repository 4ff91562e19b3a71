//! Time and luck, as arguments.

use serde::{Deserialize, Serialize};

/// Milliseconds since an origin that the caller chooses (process start in the proxy, 0 in a simulation).
/// Monotone; never wall-clock time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment plus `ms` milliseconds; saturates.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A request's luck: one 64-bit seed from which every random choice of that request is derived.
///
/// Streams are separated with SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014),
/// so the same seed gives the same decision in the proxy and in `explain --draw`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Draw(pub u64);

impl Draw {
    /// The stream that chooses a split's arm.
    pub const ARM: u64 = 1;
    /// The stream of a minted cookie's value.
    pub const MINT: u64 = 2;
    /// The stream that chooses a locality level by a key's hash.
    pub const LEVEL: u64 = 3;
    /// The stream that says whether a request is copied to a mirror.
    pub const MIRROR: u64 = 5;
    /// The stream of a copy's pick.
    pub const MIRROR_PICK: u64 = 6;
    /// The stream of the first pick; the nth retry uses `PICK + n`.
    pub const PICK: u64 = 16;

    /// An independent draw for the given stream.
    #[must_use]
    pub fn fork(self, stream: u64) -> Self {
        Self(mix(self.0 ^ mix(stream.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
    }

    /// The next value of this stream; advances it.
    pub fn advance(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A uniform value below `bound` (multiply-shift, no modulo); 0 when `bound` is 0. Advances the stream.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.advance()) * u128::from(bound)) >> 64) as u64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
