//! Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927).

/// The square of the 97.5 % quantile of the normal distribution: the two-sided 95 % interval.
const Z2: f64 = 1.959_963_984_540_054 * 1.959_963_984_540_054;

/// Whether the upper bound of the 95 % interval for `successes` of `requests` is below `rate` (parts per million).
/// A plain rate would eject at random: at 5 requests it moves in steps of 20 %.
#[must_use]
pub fn upper_bound_below(successes: u32, requests: u32, rate: u32) -> bool {
    upper_bound(successes, requests) < f64::from(rate) / 1e6
}

/// The upper bound; 1 without requests.
#[must_use]
pub fn upper_bound(successes: u32, requests: u32) -> f64 {
    if requests == 0 {
        return 1.0;
    }
    let n = f64::from(requests);
    let p = f64::from(successes) / n;
    let centre = p + Z2 / (2.0 * n);
    let half = (Z2 * (p * (1.0 - p) / n + Z2 / (4.0 * n * n))).sqrt();
    ((centre + half) / (1.0 + Z2 / n)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_five_trips_and_three_of_five_does_not() {
        assert!(upper_bound_below(2, 5, 800_000), "{}", upper_bound(2, 5));
        assert!(!upper_bound_below(3, 5, 800_000), "{}", upper_bound(3, 5));
        assert!(!upper_bound_below(0, 0, 800_000));
        assert!(!upper_bound_below(5, 5, 1_000_000));
    }
}
