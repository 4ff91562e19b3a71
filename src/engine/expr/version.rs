//! Version order (RULES.md, *Expressions*): optional `v`, `+build` ignored, any number of integer components
//! (leading zeros allowed, missing ones 0), a pre-release before its release with SemVer 2.0's order (section 11)
//! among pre-releases.

use std::cmp;

use semver::VersionReq;

use super::ast::{Ordering, Version};

impl Version {
    /// Reads a version; `None` when the text is none, or a component does not fit 64 bits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts = Parts::of(text)?;
        let mut numbers: Vec<u64> = parts.numbers().collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self { numbers, pre: parts.pre.map(|pre| pre.split('.').map(Into::into).collect()) })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        order_numbers(self.numbers.iter().copied(), other.numbers.iter().copied()).then_with(|| {
            order_pre(
                self.pre.as_ref().map(|pre| pre.iter().map(|id| &**id)),
                other.pre.as_ref().map(|pre| pre.iter().map(|id| &**id)),
            )
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// The order of a text against a version, without allocating; `None` when the text is no version.
#[must_use]
pub fn compare(text: &str, with: &Version) -> Option<cmp::Ordering> {
    let parts = Parts::of(text)?;
    let numbers = order_numbers(parts.numbers(), with.numbers.iter().copied());
    Some(numbers.then_with(|| {
        order_pre(parts.pre.map(|pre| pre.split('.')), with.pre.as_ref().map(|pre| pre.iter().map(|id| &**id)))
    }))
}

impl Ordering {
    /// Whether a comparison's outcome is what the operator asks for.
    #[must_use]
    pub fn admits(self, order: cmp::Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    /// The operator as written.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Reads a requirement as Cargo does: comma-separated comparators, bare means `^`. A `v` before a number is allowed,
/// as in versions. The error is the parser's sentence.
pub fn requirement(text: &str) -> Result<VersionReq, String> {
    let plain: Vec<String> = text.split(',').map(without_v).collect();
    VersionReq::parse(&plain.join(",")).map_err(|error| error.to_string())
}

/// Whether a text is a version that meets a requirement. Components after the third are not looked at;
/// pre-releases match as in Cargo, only where a comparator names one of the same three numbers.
#[must_use]
pub fn meets(text: &str, requirement: &VersionReq) -> bool {
    let Some(parts) = Parts::of(text) else { return false };
    let mut numbers = parts.numbers().chain(std::iter::repeat(0));
    let mut next = || numbers.next().unwrap_or(0);
    let mut version = semver::Version::new(next(), next(), next());
    if let Some(pre) = parts.pre {
        let pre: Vec<&str> = pre.split('.').map(without_zeros).collect();
        match semver::Prerelease::new(&pre.join(".")) {
            Ok(pre) => version.pre = pre,
            Err(_) => return false,
        }
    }
    requirement.matches(&version)
}

/// A version taken apart, still text; every number is known to fit 64 bits.
struct Parts<'t> {
    numbers: &'t str,
    pre: Option<&'t str>,
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let digits = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && id.parse::<u64>().is_ok();
        let word = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let sound = numbers.split('.').all(digits)
            && pre.is_none_or(|pre| pre.split('.').all(word))
            && build.is_none_or(|build| build.split('.').all(word));
        sound.then_some(Self { numbers, pre })
    }

    fn numbers(&self) -> impl Iterator<Item = u64> + 't {
        self.numbers.split('.').map(|number| number.parse().unwrap_or(0))
    }
}

fn order_numbers(mut a: impl Iterator<Item = u64>, mut b: impl Iterator<Item = u64>) -> cmp::Ordering {
    loop {
        let (left, right) = (a.next(), b.next());
        if left.is_none() && right.is_none() {
            return cmp::Ordering::Equal;
        }
        match left.unwrap_or(0).cmp(&right.unwrap_or(0)) {
            cmp::Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

/// No pre-release is later than any; identifiers by [`order_id`]; fewer are earlier.
fn order_pre<'t, 's>(
    a: Option<impl Iterator<Item = &'t str>>,
    b: Option<impl Iterator<Item = &'s str>>,
) -> cmp::Ordering {
    let (mut a, mut b) = match (a, b) {
        (None, None) => return cmp::Ordering::Equal,
        (None, Some(_)) => return cmp::Ordering::Greater,
        (Some(_), None) => return cmp::Ordering::Less,
        (Some(a), Some(b)) => (a, b),
    };
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return cmp::Ordering::Equal,
            (None, Some(_)) => cmp::Ordering::Less,
            (Some(_), None) => cmp::Ordering::Greater,
            (Some(a), Some(b)) => order_id(a, b),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Numbers by value and before words, words by ASCII order.
fn order_id(a: &str, b: &str) -> cmp::Ordering {
    let number = |id: &str| id.bytes().all(|b| b.is_ascii_digit());
    match (number(a), number(b)) {
        (true, true) => {
            let (a, b) = (without_zeros(a), without_zeros(b));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => cmp::Ordering::Less,
        (false, true) => cmp::Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

fn without_zeros(id: &str) -> &str {
    if !id.bytes().all(|b| b.is_ascii_digit()) {
        return id;
    }
    let short = id.trim_start_matches('0');
    if short.is_empty() { &id[id.len() - 1..] } else { short }
}

fn without_v(comparator: &str) -> String {
    let at = comparator.find(|c: char| !c.is_whitespace() && !"=<>^~".contains(c));
    match at {
        Some(at) if comparator[at..].starts_with('v') => {
            format!("{}{}", &comparator[..at], &comparator[at + 1..])
        }
        _ => comparator.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|| panic!("{text} is a version"))
    }

    #[test]
    fn versions_are_ordered_by_number_and_prereleases_come_first() {
        let ascending = [
            "1.0-2",
            "1.0-11",
            "1.0-2x",
            "1.0-alpha",
            "1.0-alpha.1",
            "1.0-alpha.beta",
            "1.0",
            "1.2",
            "1.5",
            "1.25",
            "2",
            "10.0.0.1",
        ];
        for (i, low) in ascending.iter().enumerate() {
            for high in &ascending[i + 1..] {
                assert!(version(low) < version(high), "{low} < {high}");
            }
        }
        for (a, b) in [("v1.2", "1.2.0"), ("1.2+build.7", "1.2"), ("01.002", "1.2"), ("1.0-rc.01", "1-rc.1")] {
            assert_eq!(version(a), version(b));
        }
        for none in
            ["", "v", "1.", ".1", "1..2", "1.x", "one", "1-", "1-a..b", "-1", "1+", "99999999999999999999", "1 "]
        {
            assert!(Version::parse(none).is_none(), "{none:?} is no version");
        }
    }

    #[test]
    fn requirements_read_as_cargo_reads_them() {
        for (text, yes, no) in [
            ("1.2", "1.9.0", "2.0.0"),
            ("~1.2", "v1.2.7", "1.3"),
            (">=1.2, <1.4", "1.3", "1.4"),
            ("=v1.2.3", "1.2.3", "1.2.4"),
            ("^1.0.0-rc.1", "1.0.0-rc.2", "1.1.0-rc.2"),
            ("*", "3", "three"),
        ] {
            let requirement = requirement(text).unwrap();
            assert!(meets(yes, &requirement), "{yes} meets {text}");
            assert!(!meets(no, &requirement), "{no} does not meet {text}");
        }
        assert!(requirement("newest").is_err());
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_agrees_with_the_borrowed_one(
            a in "v?[0-9]{1,3}(\\.[0-9]{1,2}){0,3}(-[0-9a-c]{1,3}(\\.[0-9a-c]{1,2}){0,2})?(\\+[a-z]{1,3})?",
            b in "v?[0-9]{1,3}(\\.[0-9]{1,2}){0,3}(-[0-9a-c]{1,3}(\\.[0-9a-c]{1,2}){0,2})?",
            c in "[0-9](\\.[0-3]){0,3}(-[0-9a-c]{1,2})?",
        ) {
            let (x, y, z) = (version(&a), version(&b), version(&c));
            prop_assert_eq!(x.cmp(&y), y.cmp(&x).reverse());
            prop_assert_eq!(compare(&a, &y), Some(x.cmp(&y)));
            prop_assert_eq!(x.cmp(&x), cmp::Ordering::Equal);
            if x <= y && y <= z {
                prop_assert!(x <= z);
            }
            if x == y {
                prop_assert_eq!(x.cmp(&z), y.cmp(&z));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = Version::parse(&text);
            if let Ok(requirement) = requirement(&text) {
                let _ = meets(&text, &requirement);
            }
        }
    }
}
