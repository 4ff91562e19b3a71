//! Values with units, as text.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::engine::units;

use super::settings::Auto;

/// Milliseconds of `250ms`, `30s`, `5m`, `1h`, `1d`; 0 needs no unit.
pub fn duration(text: &str) -> Result<u64, String> {
    let ms = if text == "0" { Some(0) } else { units::duration(text) };
    ms.ok_or_else(|| format!("`{text}` is no duration; write 250ms, 30s, 5m, 1h or 1d"))
}

/// Milliseconds; `never` is `None`.
pub fn duration_or_never(text: &str) -> Result<Option<u64>, String> {
    if text == "never" { Ok(None) } else { duration(text).map(Some) }
}

/// Bytes of `64KiB`, `8MiB`, `1GiB`; 0 needs no unit.
pub fn size(text: &str) -> Result<u64, String> {
    let bytes = if text == "0" { Some(0) } else { units::size(text) };
    bytes.ok_or_else(|| format!("`{text}` is no size; write 64KiB, 8MiB or 1GiB"))
}

/// Parts per million of `12.5%`, from 0 to 100.
pub fn share(text: &str) -> Result<u32, String> {
    units::share(text).ok_or_else(|| format!("`{text}` is no share; write a percentage from 0% to 100%"))
}

/// Thousandths per second of `50/s`.
pub fn rate(text: &str) -> Result<u64, String> {
    units::rate(text).ok_or_else(|| format!("`{text}` is no rate; write 50/s"))
}

/// A CIDR block, or one address.
pub fn network(text: &str) -> Result<IpNet, String> {
    units::network(text).ok_or_else(|| format!("`{text}` is no network; write 10.0.0.0/8 or 10.1.2.3"))
}

/// A whole number within bounds.
pub fn whole(min: u64, max: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match text.parse::<u64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is outside {min} to {max}")),
        Err(_) => Err(format!("`{text}` is no whole number")),
    }
}

/// `auto`, or what the parser reads.
pub fn auto<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Auto<T>, String> {
    move |text| match text {
        "auto" => Ok(Auto::Auto),
        text => parse(text).map(Auto::Set).map_err(|why| format!("{why}, or `auto`")),
    }
}

/// `true` or `false`.
pub fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// An address to bind: IP and port.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address; write 0.0.0.0:8080 or [::]:8080"))
}

/// Text that is not empty.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// One of these words.
pub fn choice<T: Clone>(words: &[(&'static str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        let all = || words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("`{text}` is none of {}", all()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_read() {
        assert_eq!((duration("1.5s"), duration("0"), duration("1h")), (Ok(1_500), Ok(0), Ok(3_600_000)));
        assert_eq!((size("64KiB"), size("1MB")), (Ok(65_536), Ok(1_000_000)));
        assert_eq!((share("12.5%"), rate("50/s")), (Ok(125_000), Ok(50_000)));
        for wrong in ["10", "", "s", "-1s", "1.2.3s", "1 s", "9e99s", "99999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(share("101%").is_err() && share("5").is_err());
        assert_eq!(whole(1, 5)("9"), Err("9 is outside 1 to 5".to_owned()));
    }
}
