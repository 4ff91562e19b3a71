//! Weighted drawing in constant time (A. J. Walker 1977, in M. D. Vose's form of 1991), in integers: shares are exact.

use crate::engine::time::Draw;

/// An alias table over positions `0..n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Sum of the weights: what a column holds.
    total: u64,
    columns: Box<[Column]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    /// The part of the column, of `total`, that is its own.
    own: u64,
    /// Who has the rest.
    other: u32,
}

impl Alias {
    /// A table for weights that are not all equal; `None` when they are, or when all are 0: a uniform draw does then.
    #[must_use]
    pub fn of(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Option<Self> {
        let n = weights.len() as u64;
        let first = weights.clone().next()?;
        let total: u64 = weights.clone().map(u64::from).sum();
        if total == 0 || weights.clone().all(|weight| weight == first) {
            return None;
        }
        let mut left: Vec<u64> = weights.map(|weight| u64::from(weight) * n).collect();
        let mut columns: Vec<Column> = (0..n as u32).map(|at| Column { own: total, other: at }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|at| left[*at] < total);
        while let (Some(few), Some(many)) = (small.pop(), large.last().copied()) {
            columns[few] = Column { own: left[few], other: many as u32 };
            left[many] -= total - left[few];
            if left[many] < total {
                large.pop();
                small.push(many);
            }
        }
        Some(Self { total, columns: columns.into() })
    }

    /// A position, with probability of its weight by the total.
    #[must_use]
    pub fn draw(&self, draw: &mut Draw) -> usize {
        let at = draw.below(self.columns.len() as u64);
        self.at(at as usize, draw.below(self.total))
    }

    fn at(&self, column: usize, ticket: u64) -> usize {
        let Column { own, other } = self.columns[column];
        if ticket < own { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Counts every (column, ticket), which are equally likely.
    fn enumerate(weights: &[u32]) -> Option<Vec<u64>> {
        let alias = Alias::of(weights.iter().copied())?;
        let mut counts = vec![0; weights.len()];
        for column in 0..weights.len() {
            for ticket in 0..alias.total {
                counts[alias.at(column, ticket)] += 1;
            }
        }
        Some(counts)
    }

    proptest! {
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(0u32..40, 1..12)) {
            if let Some(counts) = enumerate(&weights) {
                let expected: Vec<u64> = weights.iter().map(|w| u64::from(*w) * weights.len() as u64).collect();
                prop_assert_eq!(counts, expected);
            }
        }
    }

    #[test]
    fn equal_weights_need_no_table() {
        assert_eq!(enumerate(&[3, 3, 3]), None);
        assert_eq!(enumerate(&[0, 0]), None);
        assert_eq!(enumerate(&[]), None);
        assert_eq!(enumerate(&[90, 10]), Some(vec![180, 20]));
    }
}
