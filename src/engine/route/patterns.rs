//! The regexes of one field of one file as a single automaton, run at most once a request.
//!
//! A shared `Regex` takes a lock on every thread but its first user, so the caches are the caller's (`Scratch`).

use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, PatternSet};

use super::scratch::SetCache;

/// What all patterns of all files may take together, compiled.
pub const TOTAL_LIMIT: usize = 64 << 20;

/// The patterns that are asked of one field.
#[derive(Debug)]
pub struct Patterns {
    /// Unique in the router; where a `Scratch` keeps its cache.
    pub index: usize,
    /// The field's slot in its file.
    pub slot: u32,
    regex: Regex,
}

impl Patterns {
    /// Compiles patterns together; each is anchored and bounded already (`expr::pattern`).
    ///
    /// # Errors
    /// When they are too large together.
    pub fn new(index: usize, slot: u32, patterns: &[String]) -> Result<Self, Box<BuildError>> {
        let regex = Regex::builder()
            .configure(config(TOTAL_LIMIT).match_kind(MatchKind::All))
            .syntax(syntax::Config::new().utf8(false))
            .build_many(patterns)
            .map_err(Box::new)?;
        Ok(Self { index, slot, regex })
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.regex.memory_usage()
    }

    /// The number of patterns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regex.pattern_len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A cache for this set.
    pub(super) fn cache(self: &std::sync::Arc<Self>) -> SetCache {
        SetCache {
            of: std::sync::Arc::clone(self),
            cache: self.regex.create_cache(),
            matched: PatternSet::new(self.regex.pattern_len()),
            stamp: 0,
        }
    }

    /// Adds the patterns that match a value to `matched`.
    pub(super) fn run(cache: &mut SetCache, value: &[u8]) {
        let input = Input::new(value).anchored(Anchored::Yes);
        cache.of.regex.which_overlapping_matches_with(&mut cache.cache, &input, &mut cache.matched);
    }
}

/// No prefilters: a value is short and matched from its start.
fn config(limit: usize) -> Config {
    Config::new().nfa_size_limit(Some(limit)).auto_prefilter(false).utf8_empty(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn matching(patterns: &[&str], value: &[u8]) -> Vec<usize> {
        let patterns: Vec<String> = patterns.iter().map(|text| crate::engine::expr::pattern(text).unwrap()).collect();
        let set = Arc::new(Patterns::new(0, 0, &patterns).unwrap());
        let mut cache = set.cache();
        Patterns::run(&mut cache, value);
        cache.matched.iter().map(|id| id.as_usize()).collect()
    }

    #[test]
    fn a_pattern_must_match_the_whole_value() {
        assert_eq!(matching(&["a+", "a|ab", ".*", "b", "(?i)A+"], b"aaa"), [0, 2, 4]);
        assert_eq!(matching(&["a|ab", "abc?"], b"ab"), [0, 1]);
        assert_eq!(matching(&[".*"], b"a\nb"), [] as [usize; 0]);
        assert_eq!(matching(&["(?s-u:.)*", ".*"], b"\xff"), [0]);
        assert_eq!(matching(&["", "x*"], b""), [0, 1]);
    }
}
