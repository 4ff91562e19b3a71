//! Rule files from the disk: a file, a folder of them, or standard input.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::diagnostic::{Diagnostics, Source};
use crate::engine::rules::{RuleSet, fill_lists, parse_files};

/// The largest rule or list file that is read, in bytes.
pub const MAX_FILE: u64 = 16 << 20;

/// Everything that was found at some paths.
#[derive(Debug)]
pub struct Loaded {
    /// The files' texts, sorted by name.
    pub sources: Vec<Arc<Source>>,
    /// The files without errors, their lists filled in.
    pub rules: RuleSet,
    /// Every problem of every file. With errors `rules` is not to be used.
    pub diagnostics: Diagnostics,
    /// What could not be read. Not empty: `rules` is not to be used.
    pub unreadable: Vec<Unreadable>,
    /// The list files that the rules name, for watching.
    pub lists: Vec<PathBuf>,
}

/// A path that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct Unreadable {
    /// As given, or found in a folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Reads and parses the rules at `paths`: files as they are, of a folder its `*.yaml` and `*.yml`, `-` is standard
/// input. Blocking.
#[must_use]
pub fn rules(paths: &[PathBuf]) -> Loaded {
    let (sources, unreadable) = sources(paths);
    parse(sources, unreadable)
}

/// Parses what was read already. Reads the list files that the rules name.
#[must_use]
pub fn parse(sources: Vec<Arc<Source>>, unreadable: Vec<Unreadable>) -> Loaded {
    let (mut rules, mut diagnostics) = parse_files(&sources);
    let lists = lists(&mut rules, &mut diagnostics);
    Loaded { sources, rules, diagnostics, unreadable, lists }
}

/// Reads the list files that the rules name (`in file("…")`) and puts their lines into the expressions; problems go
/// to `out`. Gives the files' paths. Blocking.
pub fn lists(rules: &mut RuleSet, out: &mut Diagnostics) -> Vec<PathBuf> {
    let mut seen: BTreeMap<PathBuf, Result<String, String>> = BTreeMap::new();
    let mut list = |source: &Source, path: &str| {
        let path = beside(source, path);
        seen.entry(path.clone()).or_insert_with(|| text(&path).map_err(|error| error.to_string())).clone()
    };
    fill_lists(rules, &mut list, out);
    seen.into_keys().collect()
}

/// The texts at `paths`, sorted by name, each path once; and what could not be read. Blocking.
#[must_use]
pub fn sources(paths: &[PathBuf]) -> (Vec<Arc<Source>>, Vec<Unreadable>) {
    let mut unreadable = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            match folder(path) {
                Ok(found) => files.extend(found),
                Err(source) => unreadable.push(Unreadable { path: path.clone(), source }),
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    let mut sources = Vec::new();
    for path in files {
        match text(&path) {
            Ok(text) => sources.push(Source::new(path.display().to_string(), text)),
            Err(source) => unreadable.push(Unreadable { path, source }),
        }
    }
    (sources, unreadable)
}

/// The rule files of a folder, sorted: `*.yaml` and `*.yml`, not hidden (so not the `..data` of a mounted
/// ConfigMap either), not in folders below (`invalid/`, `cases/`).
pub fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in path.read_dir()? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
        // Followed: files of a mounted ConfigMap are symbolic links.
        if !hidden && yaml && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {} MiB", MAX_FILE >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8 at byte {at}"))
    })
}

/// A path named in a rule file is meant from where that file is.
fn beside(source: &Source, path: &str) -> PathBuf {
    Path::new(&source.name).parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_gives_its_rule_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("invalid")).unwrap();
        fs::create_dir(at("..data")).unwrap();
        fs::create_dir(at("odd.yaml")).unwrap();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "invalid/c.yaml", "..data/d.yaml"] {
            fs::write(at(name), "service: w\n").unwrap();
        }
        let (sources, unreadable) = sources(&[folder.path().to_owned(), at("b.yaml"), at("none.yaml")]);
        let names: Vec<_> = sources.iter().map(|source| PathBuf::from(&source.name)).collect();
        assert_eq!(names, [at("a.yml"), at("b.yaml")]);
        assert_eq!(unreadable.len(), 1);
        assert!(unreadable[0].to_string().contains("none.yaml"), "{}", unreadable[0]);
    }

    #[test]
    fn lists_are_read_from_beside_their_rule_file() {
        let folder = tempfile::tempdir().unwrap();
        let rules_file = folder.path().join("web.yaml");
        fs::write(&rules_file, "service: w\npools: {p: zone in file('zones.txt'), q: zone in file('none.txt')}\n")
            .unwrap();
        fs::write(folder.path().join("zones.txt"), "eu-a\neu-b\n").unwrap();
        let loaded = rules(&[rules_file]);
        assert_eq!(loaded.diagnostics.0.len(), 1, "{}", loaded.diagnostics.render());
        assert_eq!(loaded.diagnostics.0[0].code, "E032");
        assert_eq!(loaded.lists.len(), 2);
    }

    #[test]
    fn a_file_that_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yaml");
        fs::write(&path, [b'a', 0xff]).unwrap();
        assert_eq!(rules(&[path]).unreadable[0].source.to_string(), "not UTF-8 at byte 1");
    }
}
