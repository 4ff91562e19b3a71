//! Wall-clock time as text, for people and logs only.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends RFC 3339 in UTC with milliseconds: `2026-11-22T10:00:00.000Z`. Before 1970: 1970.
pub fn write(at: SystemTime, out: &mut String) {
    let Civil { year, month, day, hour, minute, second, millis, .. } = Civil::of(at);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

/// The form of HTTP's fields (RFC 9110, 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. Before 1970: 1970.
#[must_use]
pub fn http_date(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Civil { days, year, month, day, hour, minute, second, .. } = Civil::of(at);
    let (name, month) = (DAYS[(days % 7) as usize], MONTHS[(month - 1) as usize]);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// A moment in the calendar, UTC.
struct Civil {
    /// Since 1970.
    days: u64,
    year: i64,
    month: i64,
    day: i64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u32,
}

impl Civil {
    /// Days to a date after Howard Hinnant, "chrono-compatible low-level date algorithms" (`civil_from_days`).
    fn of(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let shifted = days.cast_signed() + 719_468;
        let era = shifted / 146_097;
        let of_era = shifted - era * 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        Self { days, year, month, day, hour, minute, second, millis: since.subsec_millis() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn known_moments_are_written_as_they_are_known() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_341_600_123, "2026-11-22T10:00:00.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = String::new();
            write(UNIX_EPOCH + Duration::from_millis(millis), &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn the_date_of_the_rfc() {
        assert_eq!(http_date(UNIX_EPOCH + Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
