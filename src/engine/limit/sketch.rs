//! A pool's usual latency in bounded memory: a histogram with four buckets a doubling, old answers fading.

/// Buckets: the last one begins above an hour.
const BUCKETS: usize = 128;
/// Answers after which all counts are halved, so that the last few thousand decide.
const FADE_AT: u32 = 4_096;
/// Answers before anything is said.
const LEAST: u32 = 50;

/// Latencies of one pool at one worker. 512 bytes.
#[derive(Clone, Debug)]
pub struct Sketch {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Sketch {
    /// Takes one answer's latency in microseconds.
    pub fn observe(&mut self, micros: u64) {
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        if self.total >= FADE_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The 95th percentile in microseconds, at most a quarter above the true one; `None` before 50 answers.
    #[must_use]
    pub fn p95(&self) -> Option<u64> {
        if self.total < LEAST {
            return None;
        }
        let mut above = self.total - self.total / 20;
        for (at, count) in self.counts.iter().enumerate() {
            if *count >= above {
                return Some(ceiling(at));
            }
            above -= count;
        }
        None
    }
}

/// Four buckets a doubling.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(4);
    let doubling = 63 - micros.leading_zeros() as u64;
    let quarter = (micros >> (doubling - 2)) & 3;
    (((doubling - 2) * 4 + quarter) as usize).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn ceiling(at: usize) -> u64 {
    let (doubling, quarter) = (at as u64 / 4 + 2, at as u64 % 4);
    ((5 + quarter) << (doubling - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_says_nothing_of_a_few_answers() {
        let mut sketch = Sketch::default();
        (0..49).for_each(|_| sketch.observe(1_000));
        assert_eq!(sketch.p95(), None);
        sketch.observe(1_000);
        assert!(sketch.p95().is_some_and(|p95| (1_000..1_250).contains(&p95)));
    }

    #[test]
    fn old_answers_fade() {
        let mut sketch = Sketch::default();
        (0..10_000).for_each(|_| sketch.observe(1_000_000));
        (0..20_000).for_each(|_| sketch.observe(1_000));
        assert!(sketch.p95().is_some_and(|p95| p95 < 1_300), "{:?}", sketch.p95());
    }

    proptest! {
        #[test]
        fn the_percentile_is_within_a_quarter(mut all in prop::collection::vec(4u64..10_000_000, 50..300)) {
            let mut sketch = Sketch::default();
            all.iter().for_each(|micros| sketch.observe(*micros));
            all.sort_unstable();
            let exact = all[all.len() - 1 - all.len() / 20] as f64;
            let told = sketch.p95().unwrap() as f64;
            prop_assert!(told >= exact * 0.99 && told <= exact * 1.26, "{told} for {exact}");
        }
    }
}
