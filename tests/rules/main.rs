//! Rule files that are shipped: the examples parse and are clean, what is wrong is said exactly as written down, and
//! every block of docs/RULES.md holds.
//!
//! `UPDATE_EXPECTED=1 cargo test --test rules` writes the `.expected` files anew; read the difference before keeping it.

#![allow(clippy::unwrap_used)]

mod lint_page;
mod page;
mod proofs;
mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pointsman::dry_run::{check, load};

/// Everything `check` finds at a path, drawn; names are relative to the package.
fn findings(path: &str) -> check::Verdict {
    let loaded = load::rules(&[PathBuf::from(path)]);
    assert!(loaded.unreadable.is_empty(), "{path}: {:?}", loaded.unreadable);
    assert!(!loaded.sources.is_empty(), "{path}: no rule file");
    check::check(&loaded.rules, loaded.diagnostics, None)
}

fn listed(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

#[test]
fn the_examples_are_clean_together() {
    let found = findings("rules");
    assert_eq!((found.errors, found.warnings), (0, 0), "{}", found.diagnostics.render());
    let loaded = load::rules(&[PathBuf::from("rules")]);
    assert!(loaded.rules.files.len() >= 6);
    for file in &loaded.rules.files {
        assert!(!file.tests.is_empty(), "{} has no `tests`", file.source.name);
    }
}

#[test]
fn what_is_wrong_is_said_exactly() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut cases = 0;
    let mut wrong = Vec::new();
    for path in listed("rules/invalid") {
        if path.extension().is_some_and(|ext| ext == "expected" || ext == "txt") {
            continue;
        }
        cases += 1;
        let drawn = findings(&path.display().to_string()).diagnostics.render();
        assert!(!drawn.is_empty(), "{}: nothing is wrong with it", path.display());
        let expected = path.with_extension("expected");
        if update {
            fs::write(&expected, &drawn).expect("the file can be written");
        }
        let written = fs::read_to_string(&expected).unwrap_or_default();
        if written != drawn {
            wrong.push(format!("{}: found\n{drawn}\nwritten down\n{written}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 15, "only {cases} cases");
}

#[test]
fn every_code_is_listed_on_the_page_and_shown_by_a_case() {
    let mut used = BTreeSet::new();
    for folder in ["src/engine/rules", "src/engine/rules/lint", "src/engine/expr", "src/engine/route", "src/engine"] {
        for path in listed(folder).into_iter().filter(|path| path.is_file() && !is_test(path)) {
            used.extend(codes(&fs::read_to_string(path).expect("a source file"), '"'));
        }
    }
    let page = |name: &str| fs::read_to_string(name).expect("the page");
    let mut listed_there: BTreeSet<String> = codes(&page("docs/RULES.md"), '`');
    let lints = page("docs/LINT.md");
    let headings = lints.lines().filter(|line| line.starts_with("## `"));
    listed_there.extend(headings.flat_map(|line| codes(line, '`')));
    assert_eq!(used, listed_there, "codes in the sources, in docs/RULES.md and in the headings of docs/LINT.md");

    let mut shown = BTreeSet::new();
    for path in listed("rules/invalid").into_iter().filter(|path| path.extension().is_some_and(|e| e == "expected")) {
        shown.extend(codes(&fs::read_to_string(path).expect("a case"), '['));
    }
    // One needs 64 MiB of patterns, and two stand behind checks that come first; docs/LINT.md shows the lints.
    let elsewhere = ["E133", "E134", "E135"];
    let elsewhere = |code: &str| code.starts_with('W') || elsewhere.contains(&code);
    let missing: Vec<_> = used.difference(&shown).filter(|code| !elsewhere(code)).collect();
    assert!(missing.is_empty(), "no case in rules/invalid shows {missing:?}");
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("diagnostic.rs")
}

/// Codes such as `E012` right behind a mark.
fn codes(text: &str, mark: char) -> BTreeSet<String> {
    text.split(mark)
        .skip(1)
        .filter_map(|rest| rest.get(..4))
        .filter(|code| code.starts_with(['E', 'W']) && code[1..].bytes().all(|b| b.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}
