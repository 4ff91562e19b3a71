//! docs/LINT.md: of each code the first example has the finding and the mended one has not; and what is shown as a
//! witness is confirmed by the engine.

use std::fs;
use std::sync::Arc;

use pointsman::dry_run::check::{self, Named, Verdict};
use pointsman::engine::diagnostic::{Severity, Source};
use pointsman::engine::format::catalog_file;
use pointsman::engine::rules::lint::{Against, Catalog, LINTS};
use pointsman::engine::rules::{RuleSet, parse_files};

use super::page::{Block, blocks};

fn catalog(text: &str) -> Catalog {
    let (file, out) = catalog_file::parse(&Source::new("catalog.yaml", text));
    assert!(!out.has_errors(), "{}", out.render());
    file.services.into_iter().collect()
}

fn rules(text: &str) -> RuleSet {
    let (set, out) = parse_files(&[Source::new("rules/web.yaml", text)]);
    assert!(!out.has_errors(), "{}", out.render());
    set
}

/// What `check` says of a text.
pub fn verdict(text: &str, catalog: Option<&Catalog>, previous: Option<&RuleSet>) -> Verdict {
    let (set, parsed) = parse_files(&[Source::new("rules/web.yaml", text)]);
    check::check_against(&set, parsed, Against { catalog, previous }, Named::default())
}

#[test]
fn every_code_has_an_example_that_fails_and_one_that_is_mended() {
    let page = fs::read_to_string("docs/LINT.md").expect("the page");
    let mut wrong = Vec::new();
    for lint in LINTS {
        let heading = format!("## `{}`: ", lint.code);
        let Some(at) = page.find(&heading) else {
            wrong.push(format!("{} has no section", lint.code));
            continue;
        };
        let section = &page[at..];
        let section = section[3..].find("\n## ").map_or(section, |end| &section[..end + 3]);
        if lint.code == "W035" {
            continue;
        }
        let all = blocks(section);
        let one = |language: &str| -> Option<&Block> { all.iter().find(|block| block.language == language) };
        let catalog = one("yaml catalog").map(|block| catalog(&block.text));
        let previous = one("yaml rules previous").map(|block| rules(&block.text));
        let check = |language: String| {
            let block = one(&language).unwrap_or_else(|| panic!("{}: no `{language}`", lint.code));
            verdict(&block.text, catalog.as_ref(), previous.as_ref())
        };
        let failing = check(format!("yaml rules lint {}", lint.code));
        if failing.errors > 0 || !failing.diagnostics.0.iter().any(|found| found.code == lint.code) {
            wrong.push(format!("{} does not fail:\n{}", lint.code, failing.diagnostics.render()));
        }
        let mended = check(format!("yaml rules mended {}", lint.code));
        let left = mended.diagnostics.0.iter().filter(|d| d.code == lint.code || d.severity != Severity::Note);
        if left.count() > 0 {
            wrong.push(format!("{} is not mended:\n{}", lint.code, mended.diagnostics.render()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn more_values_than_metrics_keep_are_pointed_at() {
    let text = |versions: usize| {
        let row =
            |n| format!("    - {{id: web-{n}, address: 127.0.0.1, port: 9000, labels: {{version: \"1.{n}\"}}}}\n");
        format!("services:\n  web:\n{}", (0..versions).map(row).collect::<String>())
    };
    let codes = |versions| {
        let catalog = catalog(&text(versions));
        let found = verdict("service: web\nrules: [{name: a, respond: 200}]\n", Some(&catalog), None);
        found.diagnostics.0.iter().map(|found| found.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(201), ["W035"]);
    assert_eq!(codes(200), [] as [&str; 0]);
}

#[test]
fn a_witness_comes_with_what_becomes_of_it_and_the_command_that_says_so() {
    let text = "service: web\nhosts: [a.example.com]\npools: {p: id exists}\nrules:\n  - {name: cart, when: path under \"/cart\", to: p}\n  - {name: it's, when: path == \"/cart/x\" and header.x-a == \"b c\", to: p}\n  - {name: rest, to: p}\n";
    let found = verdict(text, None, None);
    let found = found.diagnostics.0.iter().find(|found| found.code == "W009").expect("it is never reached");
    let witness = found.witness.as_ref().expect("and a request shows it");
    assert_eq!(witness.outcome, "goes to `cart`");
    assert_eq!(witness.url, "http://a.example.com/cart/x");
    assert_eq!(
        witness.command,
        "echo 'services: {}' | pointsman explain --rules rules/web.yaml --catalog - GET http://a.example.com/cart/x -H 'x-a: b c'"
    );
    assert!(
        found.render().contains("= proven: GET http://a.example.com/cart/x, x-a: b c, goes to `cart`\n"),
        "{}",
        found.render()
    );
    let json = pointsman::engine::diagnostic::Diagnostics(vec![found.clone()]).to_json();
    assert_eq!((&json[0]["certainty"], &json[0]["witness"]["method"]), (&"proven".into(), &"GET".into()));
    let sarif = pointsman::engine::diagnostic::Diagnostics(vec![found.clone()]).to_sarif(|_| None);
    assert_eq!(sarif["runs"][0]["results"][0]["properties"]["certainty"], "proven");
    let _: Arc<Source> = Arc::clone(&found.source);
}
