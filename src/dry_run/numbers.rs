//! Numbers and tables as reports print them.

/// `1234567` as `1,234,567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 line`, `1,234 lines`.
#[must_use]
pub fn counted(number: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A part of one as a percentage: two decimals, more where it is less than that.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent != 0.0 && percent.abs() < 0.005 {
        return format!("{percent:.6}").trim_end_matches('0').trim_end_matches('.').to_owned() + "%";
    }
    format!("{percent:.2}%")
}

/// Lines in columns: the first to the left, the others to the right.
#[must_use]
pub fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let mut row = String::new();
        for (at, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            match at {
                0 => row.extend([cell.as_str(), &pad]),
                _ => row.extend(["  ", &pad, cell.as_str()]),
            }
        }
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_small_shares_do_not_vanish() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (percent(0.05), percent(0.0), percent(0.000_012), percent(1.0)),
            ("5.00%".into(), "0.00%".into(), "0.0012%".into(), "100.00%".into())
        );
        assert_eq!(columns(&[["a".into(), "10".into()], ["bcd".into(), "9".into()]]), "a    10\nbcd   9\n");
    }
}
