//! How a request's path becomes the one that rules see: what is refused, and what counts as the same.

/// Spellings of a path that servers read in different ways, so that a rule could be slipped past with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spellings(u8);

impl Spellings {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// `%2F`: a separator to some servers, a character to others.
    pub const ENCODED_SLASH: Self = Self(1);
    /// `\` and `%5C`: a separator to some servers.
    pub const BACKSLASH: Self = Self(1 << 1);
    /// `%00` to `%1F` and `%7F`: some servers end a path at the first.
    pub const CONTROL: Self = Self(1 << 2);
    /// `%` without two hexadecimal digits.
    pub const INVALID: Self = Self(1 << 3);
    /// `/..;x/`: some servers cut the parameter and then go up.
    pub const DOT_PARAMETER: Self = Self(1 << 4);
    /// `/./` and `/../`, however they are written.
    pub const DOT_SEGMENT: Self = Self(1 << 5);
    /// `;` and `%3B` anywhere: some servers cut a segment there, so that `/admin;x/y` is `/admin/y` to them.
    pub const PARAMETER: Self = Self(1 << 6);

    /// What settings call them.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("encoded_slash", Self::ENCODED_SLASH),
        ("backslash", Self::BACKSLASH),
        ("control", Self::CONTROL),
        ("invalid", Self::INVALID),
        ("dot_parameter", Self::DOT_PARAMETER),
        ("dot_segment", Self::DOT_SEGMENT),
        ("parameter", Self::PARAMETER),
    ];

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The one normalisation of a process. Rules match what it gives; what is forwarded stays as it came unless
/// `forward_normalised`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What is answered with 400. Default all but `DOT_SEGMENT`, which are resolved, and `PARAMETER`, which are legal
    /// and in use (`;jsessionid=`).
    pub refuse: Spellings,
    /// `//` counts as `/`. Default on.
    pub merge_slashes: bool,
    /// Instances get the path that was matched. Default off: they get what the client sent.
    pub forward_normalised: bool,
}

impl Default for Paths {
    fn default() -> Self {
        let refuse = Spellings::ENCODED_SLASH
            .and(Spellings::BACKSLASH)
            .and(Spellings::CONTROL)
            .and(Spellings::INVALID)
            .and(Spellings::DOT_PARAMETER);
        Self { refuse, merge_slashes: true, forward_normalised: false }
    }
}
