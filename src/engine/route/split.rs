//! Splits: who gets which arm (RULES.md, *Splits and keys*). Integers only; every replica agrees.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::cookie;
use super::decision::Mint;
use super::reader::Reader;
use super::router::{Arm, Split};
use crate::engine::time::Draw;

/// Where the hash that chose an arm came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The nth of the split's key fields.
    Field(usize),
    /// The cookie that an earlier answer set.
    Cookie,
    /// A value minted for this request; a cookie goes out with the answer.
    Minted(Mint),
    /// No key: the request's own luck.
    Drawn,
}

/// The arms in the order in which they take a request, and why.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Arms with a weight: first its own, then by the second hash over those left.
    pub arms: SmallVec<[u16; 4]>,
    /// The hash that chose the first.
    pub hash: u64,
    /// What was hashed.
    pub source: KeySource,
}

/// `(hash · total) >> 64`: uniform below `total`, without floating point.
#[must_use]
pub fn scaled(hash: u64, total: u64) -> u64 {
    ((u128::from(hash) * u128::from(total)) >> 64) as u64
}

/// Draws the arms for a request.
pub fn draw_arms(split: &Split, cookie_name: &str, reader: &mut Reader<'_, '_>, draw: Draw) -> Drawn {
    let mut input = std::mem::take(&mut reader.scratch.hashed);
    input.clear();
    input.extend_from_slice(split.salt.as_bytes());
    input.push(0);
    let source = key(split, cookie_name, reader, draw, &mut input);
    let mut luck = draw.fork(Draw::ARM);
    let drawn = if source == KeySource::Drawn {
        let hash = luck.advance();
        Drawn { arms: order(split, hash, |_| luck.advance()), hash, source }
    } else {
        if split.epoch > 0 {
            let mut digits = [0u8; 10];
            input.push(0);
            input.extend_from_slice(cookie::decimal(split.epoch, &mut digits));
        }
        let keyed = input.len();
        let hash = xxh3_64(&input);
        let arms = order(split, hash, |arm| {
            input.truncate(keyed);
            input.push(0);
            input.extend_from_slice(arm.name.as_bytes());
            xxh3_64(&input)
        });
        Drawn { arms, hash, source }
    };
    reader.scratch.hashed = input;
    drawn
}

/// The hash for `percent(…)`: salt, a zero byte, the first present and non-empty value; `None` without one.
pub fn keyed_hash(reader: &mut Reader<'_, '_>, key: &[u32], salt: &str) -> Option<u64> {
    let mut input = std::mem::take(&mut reader.scratch.hashed);
    input.clear();
    input.extend_from_slice(salt.as_bytes());
    input.push(0);
    let found = first_present(reader, key, &mut input);
    let hash = found.map(|_| xxh3_64(&input));
    reader.scratch.hashed = input;
    hash
}

/// Appends the key's value.
fn key(split: &Split, cookie_name: &str, reader: &mut Reader<'_, '_>, draw: Draw, input: &mut Vec<u8>) -> KeySource {
    if let Some(at) = first_present(reader, &split.key, input) {
        return KeySource::Field(at);
    }
    if split.key.is_empty() || !split.mint {
        return KeySource::Drawn;
    }
    let known = cookie::find(reader.request.headers, cookie_name).and_then(|value| cookie::parse(value, split.epoch));
    let mint = known.unwrap_or_else(|| cookie::mint(split.epoch, draw));
    mint.write(input);
    if known.is_some() { KeySource::Cookie } else { KeySource::Minted(mint) }
}

fn first_present(reader: &mut Reader<'_, '_>, key: &[u32], input: &mut Vec<u8>) -> Option<usize> {
    key.iter().position(|slot| match reader.nonempty(*slot) {
        Some(value) => {
            input.extend_from_slice(value);
            true
        }
        None => false,
    })
}

/// The first arm by `hash` over all, each further one by `again` (of the arm before it) over those left.
fn order(split: &Split, hash: u64, mut again: impl FnMut(&Arm) -> u64) -> SmallVec<[u16; 4]> {
    let mut left: SmallVec<[u16; 8]> =
        (0..split.arms.len() as u16).filter(|arm| split.arms[*arm as usize].weight > 0).collect();
    let mut total = split.total;
    let mut order = SmallVec::new();
    let mut hash = hash;
    while left.len() > 1 {
        let at = place(split, &left, scaled(hash, total));
        let arm = left.remove(at);
        total -= split.arms[arm as usize].weight;
        order.push(arm);
        if left.len() > 1 {
            hash = again(&split.arms[arm as usize]);
        }
    }
    order.extend(left);
    order
}

/// The arm whose half-open part of the cumulative weights holds the point.
fn place(split: &Split, left: &[u16], point: u64) -> usize {
    let mut upto = 0;
    left.iter()
        .position(|arm| {
            upto += split.arms[*arm as usize].weight;
            point < upto
        })
        .unwrap_or(left.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[u64]) -> Split {
        let arm = |(at, weight): (usize, &u64)| Arm { name: format!("arm{at}").into(), to: vec![0], weight: *weight };
        Split {
            arms: weights.iter().enumerate().map(arm).collect(),
            total: weights.iter().sum(),
            key: Vec::new(),
            mint: true,
            salt: "s".into(),
            epoch: 0,
        }
    }

    fn first(split: &Split, hash: u64) -> u16 {
        order(split, hash, |arm| xxh3_64(&[&hash.to_be_bytes()[..], arm.name.as_bytes()].concat()))[0]
    }

    #[test]
    fn the_parts_are_half_open_and_exact() {
        for weights in [&[10, 90][..], &[5, 95, 0], &[0, 1, 0, 3], &[333_333, 333_333, 333_334]] {
            let split = split(weights);
            let mut counted = vec![0; weights.len()];
            let steps = split.total.min(1_000);
            let width = (1u128 << 64) / u128::from(steps);
            for step in 0..steps {
                counted[first(&split, (u128::from(step) * width + width / 2) as u64) as usize] += 1;
            }
            for (count, weight) in counted.iter().zip(weights) {
                let expected = weight * steps / split.total;
                assert!(expected.abs_diff(*count) <= 1 && (*weight > 0 || *count == 0), "{weights:?}: {counted:?}");
            }
        }
        let halves = split(&[1, 1]);
        assert_eq!((first(&halves, 0), first(&halves, u64::MAX)), (0, 1));
        assert_eq!((first(&halves, (1 << 63) - 1), first(&halves, 1 << 63)), (0, 1));
    }

    #[test]
    fn a_growing_first_arm_keeps_who_it_had() {
        let (small, large) = (split(&[5, 95]), split(&[10, 90]));
        for value in 0..10_000u32 {
            let hash = xxh3_64(&value.to_be_bytes());
            assert!(first(&small, hash) != 0 || first(&large, hash) == 0);
        }
    }

    #[test]
    fn those_of_a_lost_arm_spread_by_weight_over_the_others() {
        let split = split(&[50, 10, 40, 0]);
        let mut second = [0u32; 4];
        for value in 0..20_000u32 {
            let hash = xxh3_64(&value.to_be_bytes());
            let order = order(&split, hash, |arm| xxh3_64(&[&hash.to_be_bytes()[..], arm.name.as_bytes()].concat()));
            assert_eq!(order.len(), 3);
            if order[0] == 0 {
                second[order[1] as usize] += 1;
            }
        }
        let share = f64::from(second[1]) / f64::from(second[1] + second[2]);
        assert!((0.18..0.22).contains(&share), "{second:?}");
        assert_eq!(second[3], 0);
    }
}
