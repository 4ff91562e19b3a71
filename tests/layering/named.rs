//! What pages and files for operators name exists: the tests in the tables of docs/SECURITY.md and docs/PROTOCOLS.md, the
//! metrics in deploy/alerts.yaml.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of tables whose last column is headed `test`: line number and cells.
fn rows(page: &str) -> Vec<(usize, Vec<&str>)> {
    let mut found = Vec::new();
    let mut in_table = false;
    for (at, line) in page.lines().enumerate() {
        let Some(inner) = line.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        if cells.last() == Some(&"test") {
            in_table = true;
        } else if in_table && !inner.starts_with("---") {
            found.push((at + 1, cells));
        }
    }
    found
}

/// Where a test `a::b::name` may stand: tests/e2e/a/b.rs, tests/a/b.rs.
fn files(path: &[&str]) -> Vec<PathBuf> {
    let file = format!("{}.rs", path.join("/"));
    ["tests/e2e", "tests"].iter().map(|folder| Path::new(folder).join(&file)).collect()
}

/// What is wrong with a test's name.
fn missing(named: &str) -> Option<String> {
    let parts: Vec<&str> = named.split("::").collect();
    let (name, path) = parts.split_last()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(file) = files(path).into_iter().find(|file| root.join(file).is_file()) else {
        return Some(format!("`{named}`: there is no such file of tests"));
    };
    let text = read(&file);
    let is_test = text.split("fn ").skip(1).any(|rest| rest.strip_prefix(name).is_some_and(|r| r.starts_with("()")));
    (!is_test).then(|| format!("`{named}`: {} has no such test", file.display()))
}

#[test]
fn every_row_of_the_tables_of_attacks_and_protocols_names_tests_that_exist() {
    let mut wrong = Vec::new();
    for (page, least) in [("docs/SECURITY.md", 40), ("docs/PROTOCOLS.md", 8)] {
        let text = read(page);
        let rows = rows(&text);
        assert!(rows.len() >= least, "{page}: the tables were found: {}", rows.len());
        for (line, cells) in rows {
            let last = cells.last().copied().unwrap_or_default();
            let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
            if named.is_empty() {
                wrong.push(format!("{page}:{line}: names no test"));
            }
            wrong.extend(named.into_iter().filter_map(missing).map(|what| format!("{page}:{line}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The words of a text that begin with `pointsman_` and are not names of rules or settings.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c)).filter(|word| word.starts_with("pointsman_"));
    words.map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_alerts_and_the_pages_is_one_that_is_written() {
    let known = metrics(&read("src/observe/names.rs"));
    let exists = |name: &str| {
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        known.contains(name) || bare.is_some_and(|bare| known.contains(bare))
    };
    let mut wrong = Vec::new();
    for page in ["deploy/alerts.yaml", "docs/SECURITY.md", "docs/OPERATIONS.md", "docs/HEALTH.md", "docs/PROTOCOLS.md"]
    {
        let named = metrics(&read(page));
        // A stem that ends in `_` is a family that the text speaks of as a whole.
        wrong.extend(named.iter().filter(|n| !exists(n) && !n.ends_with('_')).map(|name| format!("{page}: `{name}`")));
    }
    // The tables of attacks leave out the beginning.
    let page = read("docs/SECURITY.md");
    let counters =
        page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.ends_with("_total"));
    let unknown = counters.filter(|name| !exists(name) && !exists(&format!("pointsman_{name}")));
    wrong.extend(unknown.map(|name| format!("docs/SECURITY.md: `{name}`")));
    assert!(wrong.is_empty(), "no such metric: {}", wrong.join(", "));
    assert!(metrics(&read("deploy/alerts.yaml")).len() > 8, "the alerts were read");
}

#[test]
fn a_test_that_there_is_not_is_seen() {
    assert_eq!(
        missing("named::a_test_that_there_is_not_is_seen"),
        Some("`named::a_test_that_there_is_not_is_seen`: there is no such file of tests".into())
    );
    assert_eq!(missing("layering::named::a_test_that_there_is_not_is_seen"), None);
    assert!(missing("layering::named::a_test_that").is_some(), "a beginning is not enough");
}
