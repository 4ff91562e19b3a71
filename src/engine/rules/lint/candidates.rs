//! Values worth trying. Nothing here has to be right: what passes is checked, and texts prove nothing by failing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::settle::Literal;
use crate::engine::expr::ast::{Field, Op, Version};
use crate::engine::label::Text;

/// The most texts of one field.
const MOST: usize = 400;

/// One address of each interval on which membership in these networks is constant: complete.
pub(super) fn addresses(networks: &[&IpNet]) -> Vec<IpAddr> {
    let mapped = 0xffff_u128 << 32;
    let mut found = vec![
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        // The first one behind the IPv4-mapped ones, which no client has.
        IpAddr::V6(Ipv6Addr::from(mapped + (1 << 32))),
    ];
    for network in networks {
        match network {
            IpNet::V4(network) => {
                found.push(network.network().into());
                let after = u32::from(network.broadcast()).checked_add(1);
                found.extend(after.map(|next| IpAddr::V4(next.into())));
            }
            IpNet::V6(network) => {
                found.push(network.network().into());
                let after = u128::from(network.broadcast()).checked_add(1);
                found.extend(after.map(|next| IpAddr::V6(next.into())));
            }
        }
    }
    found.retain(|address| address.to_canonical() == *address);
    found
}

/// Texts made of what the tests mention.
pub(super) fn texts(field: &Field, literals: &[Literal<'_>]) -> Vec<Text> {
    let mut starts: Vec<String> = vec![String::new()];
    let (mut ends, mut middles) = (vec![String::new()], Vec::new());
    let mut whole: Vec<String> = usual(field).iter().map(|text| (*text).to_owned()).collect();
    for literal in literals {
        match literal.op {
            Op::Starts(text) => starts.push(text.to_string()),
            Op::Under(text) => {
                starts.extend([text.to_string(), format!("{}/", text.trim_end_matches('/'))]);
            }
            Op::Ends(text) => ends.push(text.to_string()),
            Op::Contains(text) if literal.positive => middles.push(text.to_string()),
            Op::Matches(pattern) => whole.extend(samples(pattern)),
            Op::Order(_, version) => whole.extend(around(version)),
            Op::Requirement(requirement) => {
                whole.extend(requirement.comparators.iter().map(|c| {
                    let (minor, patch) = (c.minor.unwrap_or(0), c.patch.unwrap_or(0));
                    let pre = if c.pre.is_empty() { String::new() } else { format!("-{}", c.pre) };
                    format!("{}.{minor}.{patch}{pre}", c.major)
                }));
            }
            _ => {}
        }
    }
    starts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    ends.sort_by_key(|text| std::cmp::Reverse(text.len()));
    for start in &starts {
        for end in &ends {
            for filler in ["", "x", "x/x", "0", "x9z"] {
                let middle: String =
                    middles.iter().filter(|m| !start.contains(*m) && !end.contains(*m)).cloned().collect();
                whole.push(format!("{start}{middle}{filler}{end}"));
            }
        }
    }
    if *field == Field::Path {
        whole.retain(|text| text.starts_with('/') && !text.contains("//"));
    }
    if *field == Field::Host {
        whole.retain(|text| !text.is_empty() && !text.starts_with('.') && !text.contains('/'));
    }
    whole.truncate(MOST);
    whole.into_iter().map(Text::from).collect()
}

fn usual(field: &Field) -> &'static [&'static str] {
    match field {
        Field::Method => &["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"],
        Field::Host => &["www.example.com", "x.example.net"],
        Field::Path => &["/", "/x", "/x/y"],
        _ => &["x", "1"],
    }
}

/// At, just above and just below a version.
fn around(version: &Version) -> Vec<String> {
    let numbers = match version.numbers.as_slice() {
        [] => "0".to_owned(),
        numbers => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("."),
    };
    let exact = match &version.pre {
        Some(pre) => format!("{numbers}-{}", pre.join(".")),
        None => numbers.clone(),
    };
    let above = if version.pre.is_some() { format!("{exact}.0") } else { format!("{numbers}.0.0.0.1") };
    vec![exact, above, format!("{numbers}-0")]
}

/// Texts that a pattern may match: its first alternative with every choice taken first, repetitions at their least,
/// and once more with optional parts there.
pub(super) fn samples(pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    for keep in [false, true] {
        let chars: Vec<char> = pattern.chars().collect();
        let mut at = 0;
        if let Some(text) = alternatives(&chars, &mut at, keep) {
            found.extend(text);
        }
    }
    found.dedup();
    found
}

/// Every alternative's sample up to a closing parenthesis or the end.
fn alternatives(chars: &[char], at: &mut usize, keep: bool) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    loop {
        let Some(c) = chars.get(*at).copied() else { return Some(all) };
        let piece = match c {
            ')' => return Some(all),
            '|' => {
                all.push(String::new());
                *at += 1;
                continue;
            }
            '^' | '$' => {
                *at += 1;
                continue;
            }
            '(' => {
                *at += 1;
                while chars.get(*at) == Some(&'?') || (chars.get(*at) == Some(&':') && chars.get(*at - 1) == Some(&'?'))
                {
                    *at += 1;
                }
                let inner = alternatives(chars, at, keep)?;
                *at += 1;
                inner.into_iter().next()?
            }
            '[' => class(chars, at)?,
            '.' => {
                *at += 1;
                "x".to_owned()
            }
            '\\' => {
                *at += 2;
                match chars.get(*at - 1)? {
                    'd' => "1".to_owned(),
                    'w' => "x".to_owned(),
                    's' => " ".to_owned(),
                    'b' | 'A' | 'z' | 'B' => String::new(),
                    c if c.is_ascii_alphanumeric() => return None,
                    c => c.to_string(),
                }
            }
            c => {
                *at += 1;
                c.to_string()
            }
        };
        let times = repetition(chars, at, keep)?;
        all.last_mut()?.push_str(&piece.repeat(times));
    }
}

/// A class's first member.
fn class(chars: &[char], at: &mut usize) -> Option<String> {
    let end = *at + 1 + chars.get(*at + 1..)?.iter().skip(1).position(|c| *c == ']')? + 1;
    let inside = &chars[*at + 1..end];
    *at = end + 1;
    let member = match inside {
        ['^', rest @ ..] => *['x', '1', '-', '/'].iter().find(|c| !rest.contains(c))?,
        ['\\', 'd', ..] => '1',
        ['\\', 'w', ..] => 'x',
        ['\\', c, ..] => *c,
        [c, ..] => *c,
        [] => return None,
    };
    Some(member.to_string())
}

fn repetition(chars: &[char], at: &mut usize, keep: bool) -> Option<usize> {
    let times = match chars.get(*at) {
        Some('*' | '?') => usize::from(keep),
        Some('+') => 1,
        Some('{') => {
            let end = *at + chars[*at..].iter().position(|c| *c == '}')?;
            let text: String = chars[*at + 1..end].iter().collect();
            *at = end;
            text.split(',').next()?.parse().ok().filter(|times| *times <= 64)?
        }
        _ => return Some(1),
    };
    *at += 1;
    if chars.get(*at) == Some(&'?') {
        *at += 1;
    }
    Some(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_match_the_patterns_they_were_made_of() {
        for pattern in
            ["/v[12]/reports/[0-9]{4}-[0-9]{2}/export", "a|b+c", "(ab)?c*d", r"\d+\.x", "[^a]z", "v(1|2)(?:x|y)", ".*"]
        {
            let regex = regex::RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(1 << 20).build().unwrap();
            let samples = samples(pattern);
            assert!(!samples.is_empty(), "{pattern}");
            assert!(samples.iter().all(|sample| regex.is_match(sample)), "{pattern}: {samples:?}");
        }
        assert!(samples("{").is_empty() || samples("[").is_empty());
    }
}
