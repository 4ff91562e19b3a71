//! The commands over `files/`, against `expected/`.

use std::path::Path;
use std::process::Command;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dry_run");

/// Runs a command in `files/`; its status and what it printed, standard error after standard output.
fn run(args: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(args.split('|').map(str::trim))
        .current_dir(Path::new(HERE).join("files"))
        .env("NO_COLOR", "1")
        .output()
        .expect("the command starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).expect("it prints text"))
}

/// The command ends with this status and prints what stands in `expected/NAME`.
fn check(name: &str, status: i32, args: &str) {
    let (is, text) = run(args);
    let path = Path::new(HERE).join("expected").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &text).expect("the expected file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{args}");
    assert_eq!(is, status, "{args}\n{text}");
}

const REPLAY: &str = "replay|--rules|web.yaml|--catalog|fleet.yaml|--traffic";
const DIFF: &str = "diff|--rules|web.yaml|--with|next.yaml|--catalog|fleet.yaml|--traffic|traffic.jsonl";

#[test]
fn tests_beside_the_rules_pass_and_say_what_they_cover() {
    check("test.txt", 0, "test|web.yaml|--catalog|fleet.yaml");
    check("test-without-catalog.txt", 0, "test|web.yaml");
    check("test-under.txt", 4, "test|next.yaml|--fail-under|95%");
}

#[test]
fn a_failed_test_points_at_its_line_with_expected_and_actual() {
    check("test-failing.txt", 1, "test|failing.yaml|--catalog|fleet.yaml");
    check("test-failing.json", 1, "test|failing.yaml|--format|json|--fail-under|100");
}

#[test]
fn tests_in_a_file_of_their_own_name_their_rules() {
    check("test-file.txt", 1, "test|cases.yaml");
}

#[test]
fn a_replay_says_where_requests_go() {
    check("replay.txt", 3, &format!("{REPLAY}|traffic.jsonl|--region|eu"));
    check("replay.json", 3, &format!("{REPLAY}|traffic.jsonl|--format|json|--threads|3"));
    check("replay-each.jsonl", 3, &format!("{REPLAY}|traffic.jsonl|--each|--seed|7"));
}

#[test]
fn a_replay_simulates_what_is_down_and_what_there_is_more_of() {
    check("replay-down.txt", 3, &format!("{REPLAY}|traffic.jsonl|--down|version == 1.3|--scale|id == web-1: 2"));
}

#[test]
fn a_greeting_goes_where_its_name_is_routed() {
    const EXPLAIN: &str = "explain|--rules|passed.yaml|--catalog|fleet.yaml|--sni";
    check("explain-sni.txt", 0, &format!("{EXPLAIN}|DB.shop.example.com|--region|us"));
    check("explain-sni-answer.txt", 3, &format!("{EXPLAIN}|www.shop.example.com"));
    check("explain-sni-nobody.txt", 3, &format!("{EXPLAIN}|other.example"));
    check("replay-passed.jsonl", 3, "replay|--rules|passed.yaml|--catalog|fleet.yaml|--traffic|passed.jsonl|--each");
}

#[test]
fn a_file_for_every_service_is_explained_replayed_and_compared_service_by_service() {
    const STAR: &str = "--rules|star.yaml|--catalog|many.yaml";
    check("star-explain.txt", 0, &format!("explain|{STAR}|GET|http://cart.internal/|-H|x-user-id: u1|--seed|3"));
    check("star-explain-unknown.txt", 3, &format!("explain|{STAR}|GET|http://web.internal/"));
    check("star-replay.txt", 3, &format!("replay|{STAR}|--traffic|many.jsonl"));
    check("star-diff.txt", 0, &format!("diff|{STAR}|--with|star-next.yaml|--traffic|many.jsonl"));
}

#[test]
fn every_format_is_recognised() {
    check("replay-combined.txt", 0, &format!("{REPLAY}|combined.log|--host|shop.example.com"));
    check("replay-envoy.txt", 0, &format!("{REPLAY}|envoy.jsonl"));
    check("replay-har.txt", 0, &format!("{REPLAY}|archive.har|--input-format|har"));
}

#[test]
fn a_diff_tells_expected_moves_from_surprises() {
    check("diff.txt", 0, &format!("{DIFF}|--region|eu"));
    check("diff.json", 0, &format!("{DIFF}|--format|json|--threads|3"));
    check("diff-limit.txt", 1, &format!("{DIFF}|--max-moved|3%|--max-unrouted|0"));
    check(
        "diff-same.txt",
        0,
        "diff|--rules|web.yaml|--with|web.yaml|--catalog|fleet.yaml|--traffic|traffic.jsonl|--max-moved|0%",
    );
}

#[test]
fn what_cannot_be_used_is_said_at_once_and_is_status_2() {
    check("unusable.txt", 2, "replay|--rules|none.yaml|--traffic|traffic.jsonl|--down|version ==");
    check("strict.txt", 2, &format!("{REPLAY}|traffic.jsonl|--strict|--threads|1"));
    check("nothing-to-compare.txt", 2, "diff|--rules|web.yaml|--catalog|fleet.yaml|--traffic|traffic.jsonl");
}

#[test]
fn the_tests_of_the_shipped_rules_cover_them_whole() {
    let (status, text) = run("test|../../../rules|--fail-under|100%");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("coverage: rules 19/19 (100%)"), "{text}");
}

#[test]
fn a_diff_says_that_it_does_not_count_a_slow_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let slow = folder.path().join("slow.yaml");
    let rules = std::fs::read_to_string(format!("{HERE}/files/web.yaml")).expect("the rules");
    std::fs::write(&slow, format!("slow_start: 30s\n{rules}")).expect("it can be written");
    let slow = slow.display();
    let of = |with: &str| {
        run(&format!("diff|--rules|web.yaml|--with|{with}|--catalog|fleet.yaml|--traffic|traffic.jsonl")).1
    };
    let told = of(&slow.to_string());
    assert!(told.contains("\nnote: slow_start is over: "), "{told}");
    assert!(!of("web.yaml").contains("note:"));
}
