//! Values with units, as every file of ours writes them: `250ms`, `64KiB`, `5%`, `10.0.0.0/8`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::policy::WHOLE;

/// Milliseconds of `250ms`, `30s`, `5m`, `1.5h`, `7d`; at most three decimals, at most a hundred years.
/// A number without a unit is `None`, zero included.
#[must_use]
pub fn duration(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let thousandths = decimal(number, 3)?.checked_mul(unit)?;
    let ms = thousandths / 1_000;
    (thousandths % 1_000 == 0 && ms <= 100 * 366 * 86_400_000).then_some(ms)
}

/// Bytes of `512B`, `64KiB`, `10MiB`, `1GiB` (powers of 1,024) or `64kB`, `10MB`, `1GB` (powers of 1,000).
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Parts per million of `5%`, `0.5%`, `33.3333%`; from 0 to 100, at most four decimals.
#[must_use]
pub fn share(text: &str) -> Option<u32> {
    percent(text.strip_suffix('%')?)
}

/// Parts per million of the percentage `5`, `0.5`, `33.3333`; from 0 to 100, at most four decimals.
#[must_use]
pub fn percent(text: &str) -> Option<u32> {
    let ppm = decimal(text, 4)?;
    u32::try_from(ppm).ok().filter(|ppm| *ppm <= WHOLE)
}

/// Thousandths a second of `100/s`, `30/m`, `10/h`; rounded up, so that it is never 0 for a number above 0.
#[must_use]
pub fn rate(text: &str) -> Option<u64> {
    let (number, per) = text.split_once('/')?;
    let seconds = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    decimal(number, 3).map(|thousandths| thousandths.div_ceil(seconds))
}

/// A CIDR block, or one address as a block of its own; IPv4-mapped ones unmapped.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().ok()?,
    };
    match network {
        IpNet::V6(six) if six.prefix_len() >= 96 => match six.addr().to_ipv4_mapped() {
            Some(four) => Ipv4Net::new(four, six.prefix_len() - 96).ok().map(IpNet::V4),
            None => Some(network),
        },
        _ => Some(network),
    }
}

/// A decimal number scaled by 10^`places`, exactly; `None` for more decimals, signs, exponents or overflow.
#[must_use]
pub fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > places {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some((&text[..at], &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_exact() {
        assert_eq!(duration("250ms"), Some(250));
        assert_eq!(duration("1.5s"), Some(1_500));
        assert_eq!(duration("1h"), Some(3_600_000));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(share("5%"), Some(50_000));
        assert_eq!(share("33.3333%"), Some(333_333));
        assert_eq!(share("100%"), Some(WHOLE));
        assert_eq!(rate("100/s"), Some(100_000));
        assert_eq!(rate("1/h"), Some(1));
        for none in ["", "30", "0", "s", "-1s", "1e3s", "1.0001s", ".5s", "5 s", "99999999999999999999d"] {
            assert_eq!(duration(none), None, "{none}");
        }
        for none in ["5", "101%", "1.00001%", "%", "+5%", "5%%"] {
            assert_eq!(share(none), None, "{none}");
        }
    }

    #[test]
    fn mapped_networks_are_unmapped() {
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
        assert_eq!(network("10.0.0.1"), network("10.0.0.1/32"));
        assert!(network("10.0.0.0/33").is_none());
    }
}
