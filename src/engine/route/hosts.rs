//! Which file claims a host and a path: exact host, then the longest wildcard, then no host; then the longest path.

use rustc_hash::FxHashMap;

use super::router::FileIdx;
use crate::engine::label::Text;
use crate::engine::rules::HostPattern;

/// The claims of all files. Its maps' keys are the operator's, never a client's.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    exact: FxHashMap<Text, Paths>,
    /// By the suffix without `*.`.
    wildcard: FxHashMap<Text, Paths>,
    any: Paths,
}

/// A claim that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'r> {
    /// Who claims it.
    pub file: FileIdx,
    /// The host or, with `wildcard`, the suffix; `None`: any host.
    pub host: Option<&'r str>,
    /// The host is a wildcard's suffix.
    pub wildcard: bool,
    /// The path prefix.
    pub path: &'r str,
}

#[derive(Clone, Debug, Default)]
struct Paths {
    root: Option<FileIdx>,
    prefixes: FxHashMap<Text, FileIdx>,
    /// Slashes in the longest prefix.
    depth: usize,
}

impl Hosts {
    /// Adds a claim. `Err` with the file that has it already.
    pub fn claim(&mut self, host: Option<&HostPattern>, path: &Text, file: FileIdx) -> Result<(), FileIdx> {
        let paths = match host {
            Some(HostPattern::Exact(host)) => self.exact.entry(Text::clone(host)).or_default(),
            Some(HostPattern::Wildcard(suffix)) => self.wildcard.entry(Text::clone(suffix)).or_default(),
            None => &mut self.any,
        };
        paths.claim(path, file)
    }

    /// The claim that wins for a normalised host and path.
    #[must_use]
    pub fn find<'r>(&'r self, host: &'r str, path: &'r str) -> Option<Claim<'r>> {
        if let Some((file, path)) = self.exact.get(host).and_then(|paths| paths.longest(path)) {
            return Some(Claim { file, host: Some(host), wildcard: false, path });
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some((file, path)) = self.wildcard.get(suffix).and_then(|paths| paths.longest(path)) {
                    return Some(Claim { file, host: Some(suffix), wildcard: true, path });
                }
                rest = suffix;
            }
        }
        let (file, path) = self.any.longest(path)?;
        Some(Claim { file, host: None, wildcard: false, path })
    }
}

impl Paths {
    fn claim(&mut self, path: &Text, file: FileIdx) -> Result<(), FileIdx> {
        if &**path == "/" {
            return match self.root {
                Some(first) => Err(first),
                None => {
                    self.root = Some(file);
                    Ok(())
                }
            };
        }
        self.depth = self.depth.max(path.bytes().filter(|byte| *byte == b'/').count());
        match self.prefixes.insert(Text::clone(path), file) {
            Some(first) => {
                self.prefixes.insert(Text::clone(path), first);
                Err(first)
            }
            None => Ok(()),
        }
    }

    fn longest<'p>(&self, path: &'p str) -> Option<(FileIdx, &'p str)> {
        if !self.prefixes.is_empty() {
            let mut end = upto(path, self.depth);
            while end > 0 {
                if let Some(file) = self.prefixes.get(&path[..end]) {
                    return Some((*file, &path[..end]));
                }
                end = path[..end].rfind('/').unwrap_or(0);
            }
        }
        self.root.map(|file| (file, "/"))
    }
}

/// The end of the first `segments` segments of an absolute path.
pub(super) fn upto(path: &str, segments: usize) -> usize {
    let mut slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    slashes.nth(segments).unwrap_or(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        let mut hosts = Hosts::default();
        let exact = |host: &str| Some(HostPattern::Exact(host.into()));
        let wildcard = |host: &str| Some(HostPattern::Wildcard(host.into()));
        for (file, (host, path)) in [
            (exact("a.b.c"), "/cart"),
            (wildcard("b.c"), "/cart"),
            (wildcard("b.c"), "/"),
            (wildcard("c"), "/wide"),
            (None, "/"),
            (None, "/wide/er/still"),
            (exact("a.b.c"), "/cart/items"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(hosts.claim(host.as_ref(), &path.into(), file as u32), Ok(()));
        }
        hosts
    }

    fn file(host: &str, path: &str) -> Option<u32> {
        hosts().find(host, path).map(|claim| claim.file)
    }

    #[test]
    fn the_narrowest_host_that_claims_the_path_wins() {
        assert_eq!(file("a.b.c", "/cart"), Some(0));
        assert_eq!(file("a.b.c", "/cart/"), Some(0));
        assert_eq!(file("a.b.c", "/cart/items/7"), Some(6));
        assert_eq!(file("a.b.c", "/cart/itemsize"), Some(0));
        assert_eq!(
            file("a.b.c", "/cartoon"),
            Some(2),
            "by segment, and what an exact host leaves falls to a wider one"
        );
        assert_eq!(file("x.y.b.c", "/cart/1"), Some(1));
        assert_eq!(file("b.c", "/wide"), Some(3), "a wildcard needs a label in front");
        assert_eq!(file("b.c", "/"), Some(4));
        assert_eq!(file("other", "/wide/er/still/x/y"), Some(5));
        assert_eq!(file("other", "/wide/er"), Some(4));
        assert_eq!(file("", "/"), Some(4));
    }

    #[test]
    fn the_same_pair_twice_names_the_first() {
        let mut hosts = hosts();
        assert_eq!(hosts.claim(None, &"/".into(), 9), Err(4));
        assert_eq!(hosts.claim(Some(&HostPattern::Wildcard("c".into())), &"/wide".into(), 9), Err(3));
        assert_eq!(hosts.find("x.c", "/wide").map(|claim| claim.file), Some(3));
    }

    #[test]
    fn without_claims_nothing_is_found() {
        assert_eq!(Hosts::default().find("a", "/"), None);
    }
}
