//! Slow clients of every kind, and fast ones, beside good ones: `benches/slow`, with few clients and for a moment.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const CLIENTS: u64 = 200;
/// What a client may hold in an unoptimised build, KiB; most of all one that reads nothing. docs/SECURITY.md has a release.
const MOST_KIB_EACH: f64 = 200.0;

/// What a bench of slow clients does with the program.
fn python(bench: &str, arguments: &[&str]) -> Output {
    let python = std::env::var("PYTHON_FOR_TESTS")
        .expect("PYTHON_FOR_TESTS names a Python: export PYTHON_FOR_TESTS=$(scripts/python.sh)");
    Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/slow").join(bench))
        .arg(env!("CARGO_BIN_EXE_pointsman"))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}

#[test]
fn good_clients_are_served_beside_slow_ones_of_every_kind_and_memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let figures = folder.path().join("figures.json");
    let output = python(
        "slow.py",
        &[
            "--clients",
            &CLIENTS.to_string(),
            "--seconds",
            "2",
            "--quiet",
            "0.5",
            "--every",
            "0.5",
            "--arriving",
            "1",
            "--at-once",
            "500",
            "--json",
            figures.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let figures: Value = serde_json::from_slice(&std::fs::read(figures).unwrap()).unwrap();
    let kinds = figures["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 12);
    for kind in kinds {
        let name = &kind["kind"];
        assert!(kind["clients"].as_u64().unwrap() >= CLIENTS * 9 / 10, "{name}: they are there: {kind}");
        assert_eq!(kind["good_failed"], 0, "{name}: {kind}");
        assert!(kind["good"].as_u64().unwrap() >= 400, "{name}: {kind}");
        assert!(kind["p99_ms"].as_f64().unwrap() < 3_000.0, "{name}: {kind}");
        assert!(kind["kib_each"].as_f64().unwrap() <= MOST_KIB_EACH, "{name}: {kind}");
    }
    assert!(figures["at_once"]["answered_s"].as_f64().is_some_and(|seconds| seconds < 10.0), "{figures}");
}

#[test]
fn good_clients_are_served_beside_fast_ones() {
    let output = python("greedy.py", &["--downloads", "0,8", "--seconds", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter(|line| line.ends_with("| 0 of 200 |")).count(), 2, "{text}");
}
