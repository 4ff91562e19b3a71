//! The pages: their `yaml rules` blocks are rule files (or parts of one), and what docs/RULES.md draws of a
//! `yaml rules wrong` block is what `check` says of it.

use std::fs;

use pointsman::dry_run::check;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::rules::parse_files;

use super::schema::{refused, tests_refused};

/// What a part of a file may lean on.
const FRAME: [(&str, &str); 4] = [
    ("service:", "service: web\n"),
    ("pools:", "pools: {gray: version == 1.3, stable: version == 1.2}\n"),
    ("labels:", "labels: {lane: header.x-lane, group: header.x-user-group}\n"),
    ("trusted:", "trusted: [10.0.0.0/8]\n"),
];

pub struct Block {
    pub language: String,
    pub text: String,
    line: usize,
}

pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                found.push(Block { language: language.to_owned(), text: String::new(), line: at + 1 });
            }
            None if open => {
                let block = found.last_mut().expect("an open block");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "a block is not closed");
    found
}

/// What `check` finds in a text.
fn findings(text: &str) -> String {
    let (set, parsed) = parse_files(&[Source::new("rules/web.yaml", text)]);
    check::check(&set, parsed, None).diagnostics.render()
}

#[test]
fn every_yaml_block_is_a_rule_file_or_a_part_of_one() {
    let mut pages = super::listed("docs");
    pages.retain(|path| path.extension().is_some_and(|ext| ext == "md"));
    pages.push("README.md".into());
    let mut seen = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        for block in blocks(&text) {
            match block.language.as_str() {
                "yaml rules" => sound(&page.display().to_string(), &block),
                "yaml tests" => assert_eq!(tests_refused(&block.text), Some(Vec::new()), "{}", block.text),
                _ => continue,
            }
            seen += 1;
        }
    }
    assert!(seen >= 9, "only {seen} blocks");
}

fn sound(page: &str, block: &Block) {
    let mut text = block.text.clone();
    for (key, frame) in FRAME {
        if !block.text.lines().any(|line| line.starts_with(key)) {
            text.push_str(frame);
        }
    }
    let refused = refused(&text).expect("YAML");
    assert!(refused.is_empty(), "{page}, the block at {}: the schema refuses it: {refused:?}", block.line);
    let (_, parsed) = parse_files(&[Source::new(format!("{page}, the block at {}", block.line), text)]);
    assert!(!parsed.has_errors(), "{}", parsed.render());
}

#[test]
fn every_drawn_finding_comes_out_of_the_block_before_it() {
    let page = fs::read_to_string("docs/RULES.md").expect("the page");
    let all = blocks(&page);
    let mut seen = 0;
    for pair in all.windows(2).filter(|pair| pair[0].language == "yaml rules wrong") {
        assert_eq!(pair[1].language, "text", "line {}: what it says must follow", pair[0].line);
        assert_eq!(findings(&pair[0].text), pair[1].text, "the block at {}", pair[0].line);
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} findings are drawn");
}
