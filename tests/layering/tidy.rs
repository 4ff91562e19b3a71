//! How files are kept: short, listed, finished, named in the project's words; links in the docs lead somewhere.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::{files, read, root, scan};

/// Lines a source file may have, tests and all.
const MOST_LINES: usize = 500;

/// A source file that is all tests: `tests.rs`, `…_tests.rs`, or under a folder `tests`.
pub fn is_test(path: &Path) -> bool {
    let is_one = |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs");
    path.iter().any(|part| part.to_str().is_some_and(is_one))
}

/// The files that a source names by `#[path = "…"]`, without their extension.
fn named_by_path(text: &str) -> impl Iterator<Item = String> {
    let attributes = text.lines().filter_map(|line| line.trim_start().strip_prefix("#[path"));
    attributes.filter_map(|rest| rest.split('"').nth(1)).map(|name| name.trim_end_matches(".rs").to_owned())
}

/// What a source text has that it must not, as `line: what`.
fn untidy(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let lines = text.lines().count();
    if lines > MOST_LINES {
        out.push(format!("{lines}: more than {MOST_LINES} lines; split it by purpose"));
    }
    let tokens = scan::tokens(text);
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    for (at, token) in tokens.iter().enumerate() {
        let what = match token.text.as_str() {
            "todo" | "unimplemented" | "dbg" if word(at + 1) == "!" => {
                format!("`{}!` in what is to be finished", token.text)
            }
            "ignore" if at > 0 && matches!(word(at - 1), "[") => "a test that never runs".to_owned(),
            "struct" | "enum" | "trait" | "type" | "mod" if is_vague(word(at + 1)) => {
                format!("`{}` says nothing; name what it is", word(at + 1))
            }
            "fn" if word(at + 1).starts_with("get_") => format!("`{}`: no `get_`", word(at + 1)),
            _ => continue,
        };
        out.push(format!("{}: {what}", token.line));
    }
    out
}

fn is_vague(name: &str) -> bool {
    let name = name.to_lowercase();
    ["manager", "helper", "helpers", "util", "utils"].iter().any(|word| name.ends_with(word))
}

/// Sources of a folder that its parent (`lib.rs`, `mod.rs`, or `name.rs` beside `name/`) does not list: they would
/// never be compiled.
fn unlisted(folder: &Path) -> Vec<String> {
    let homes = [folder.join("lib.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
    let Some(home) = homes.into_iter().find(|home| root().join(home).exists()) else {
        return vec![format!("{}: no mod.rs", folder.display())];
    };
    let siblings = files(&folder.to_string_lossy(), "rs").into_iter().filter(|path| path.parent() == Some(folder));
    let by_path = siblings.flat_map(|path| named_by_path(&read(&path)).collect::<Vec<_>>());
    let listed: HashSet<String> = scan::tokens(&read(&home))
        .windows(3)
        .filter(|three| three[0].text == "mod" && matches!(three[2].text.as_str(), ";" | "{"))
        .map(|three| three[1].text.clone())
        .chain(by_path)
        .collect();
    let mut out = Vec::new();
    for entry in root().join(folder).read_dir().expect("a folder that can be read").flatten() {
        let name = PathBuf::from(entry.file_name());
        let stem = name.with_extension("").to_string_lossy().into_owned();
        // A folder without sources (of recorded answers, say) is no module.
        let is_module = match entry.path().is_dir() {
            true => !files(&folder.join(&name).to_string_lossy(), "rs").is_empty(),
            false => name.extension().is_some_and(|ext| ext == "rs"),
        };
        if is_module && !matches!(stem.as_str(), "mod" | "lib" | "main") && !listed.contains(&stem) {
            out.push(format!("{}: `mod {stem};` is missing", home.display()));
        }
    }
    out
}

/// Links of a page that lead nowhere. `exists` says whether a path from the package's root is there, `headings` gives
/// a page's anchors.
fn dead_links(
    page: &Path,
    text: &str,
    exists: &dyn Fn(&Path) -> bool,
    headings: &dyn Fn(&Path) -> HashSet<String>,
) -> Vec<String> {
    let mut out = Vec::new();
    for (number, line) in outside_fences(text) {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let path = if file.is_empty() { page.to_owned() } else { beside(page, file) };
            if !exists(&path) {
                out.push(format!("{number}: no file `{}`", path.display()));
            } else if anchor.is_some_and(|anchor| !headings(&path).contains(anchor)) {
                out.push(format!("{number}: `{}` has no heading for `#{}`", path.display(), anchor.unwrap_or("")));
            }
        }
    }
    out
}

fn beside(page: &Path, target: &str) -> PathBuf {
    let mut out = page.parent().map(Path::to_owned).unwrap_or_default();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// Anchors as the usual renderers make them: lower case, spaces to dashes, marks dropped.
fn anchors(text: &str) -> HashSet<String> {
    outside_fences(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// Numbered lines that are not inside a fenced block.
fn outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn sources_are_short_finished_and_plainly_named() {
    let mut found = Vec::new();
    for path in ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")) {
        found.extend(untidy(&read(&path)).iter().map(|what| format!("{}:{what}", path.display())));
    }
    assert_none(&found);
}

#[test]
fn every_source_is_listed_by_its_parent() {
    let sources = files("src", "rs");
    let folders: HashSet<&Path> = sources.iter().filter_map(|path| path.parent()).collect();
    let found: Vec<String> = folders.into_iter().flat_map(unlisted).collect();
    assert_none(&found);
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut found = Vec::new();
    let pages = files("docs", "md").into_iter().chain(["README.md", "CHANGELOG.md"].map(PathBuf::from));
    for page in pages {
        let dead = dead_links(&page, &read(&page), &|path| root().join(path).exists(), &|path| anchors(&read(path)));
        found.extend(dead.iter().map(|what| format!("{}:{what}", page.display())));
    }
    assert_none(&found);
}

#[test]
fn untidiness_is_seen_and_words_in_strings_are_not() {
    let check = |text: &str, expected: usize| assert_eq!(untidy(text).len(), expected, "{text}: {:?}", untidy(text));
    check("fn f() { todo!() }", 1);
    check("fn f() { // todo!()\n \"todo!\"; }", 0);
    check("#[test]\n#[ignore = \"slow\"]\nfn f() {}", 1);
    check("struct PoolManager; mod utils; fn get_pool() {}", 3);
    check(&"\n".repeat(MOST_LINES + 1), 1);
    check(&"\n".repeat(MOST_LINES), 0);
}

#[test]
fn a_dead_link_is_seen_and_a_live_one_is_not() {
    let exists = |path: &Path| path == Path::new("docs/A.md");
    let headings = |_: &Path| anchors("# Who may import whom?\n");
    let check = |text: &str, expected: usize| {
        assert_eq!(dead_links(Path::new("docs/B.md"), text, &exists, &headings).len(), expected, "{text}");
    };
    check("[a](A.md) [a](../docs/A.md#who-may-import-whom) [w](https://example.com/x)", 0);
    check("[a](C.md)", 1);
    check("[a](A.md#nowhere)", 1);
    check("```\n[a](C.md)\n```\n", 0);
}
