//! Durations as people write them in settings: `500ms`, `55s`, `5m`, `24h`, `7d`, and `0`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Reads a duration; `None` when it is not one.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        "" if number == 0.0 => 1.0,
        _ => return None,
    };
    let total = number * millis;
    (total <= 1e15).then(|| Duration::from_millis(total.round() as u64))
}

/// Writes it in the largest unit that is exact.
#[must_use]
pub fn write(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis == 0 { "0".to_owned() } else { format!("{millis}ms") }
}

/// For `#[serde(with = "duration")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&write(*duration))
}

/// For `#[serde(with = "duration")]`.
///
/// # Errors
/// When the value is neither a duration with its unit nor 0.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    parse(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("`{text}` is not a duration: write a number and ms, s, m, h or d, or 0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit_unless_it_is_zero() {
        assert_eq!(parse("55s"), Some(Duration::from_secs(55)));
        assert_eq!(parse("1.5m"), Some(Duration::from_secs(90)));
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("0"), Some(Duration::ZERO));
        for wrong in ["55", "", "s", "5 parsecs", "-1s", "1e9h"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["55s", "5m", "24h", "250ms", "0"] {
            assert_eq!(parse(text).map(write).as_deref(), Some(text));
        }
    }
}
