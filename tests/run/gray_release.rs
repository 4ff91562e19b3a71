//! docs/GRAY-RELEASE.md: every command on it is run where it says, and prints what stands there.
//!
//! `UPDATE_EXPECTED=1 cargo test --test run gray_release` writes the outputs anew; read the difference before keeping it.

use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/GRAY-RELEASE.md";

/// A copy of the page's folder to run in.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir("docs/gray-release").unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// What a shell shows for a command.
fn shown(command: &str, at: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_pointsman")).parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-c", &format!("{{ {command}; }} 2>&1")])
        .current_dir(at)
        .env("PATH", format!("{program}:{path}"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_of_the_page_prints_what_stands_there() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (folder, mut written, mut console, mut ran) = (folder(), String::new(), false, 0);
    for line in page.lines() {
        let fence = line.starts_with("```");
        if let Some(command) = line.strip_prefix("$ ").filter(|_| console) {
            written.push_str(&format!("{line}\n{}", shown(command, folder.path())));
            ran += 1;
        } else if fence || !console {
            written.push_str(line);
            written.push('\n');
        }
        if fence {
            console = line == "```console";
        }
    }
    assert!(ran >= 10, "only {ran} commands");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(PAGE, &written).unwrap();
    }
    for (at, (stands, prints)) in page.lines().zip(written.lines()).enumerate() {
        assert_eq!(stands, prints, "{PAGE}:{}", at + 1);
    }
    assert_eq!(page.lines().count(), written.lines().count());
}

#[test]
fn the_rules_on_the_page_are_those_of_the_first_step() {
    let page = fs::read_to_string(PAGE).unwrap();
    let block = page.split("```yaml rules\n").nth(1).unwrap().split("```").next().unwrap();
    let file = fs::read_to_string("docs/gray-release/0.yaml").unwrap();
    assert!(file.starts_with(block), "{block}\n{file}");
}
