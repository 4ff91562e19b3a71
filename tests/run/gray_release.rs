//! docs/GRAY-RELEASE.md: every command on it is run where it says, and prints what stands there; what the running proxy
//! answers to the change that only its guard catches is what stands there.
//!
//! `UPDATE_EXPECTED=1 cargo test --test run gray_release` writes the outputs anew; read the difference before keeping it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::load::Load;
use crate::support::site::{Site, admin_get, until};

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

/// Whether all that stands in `part` stands in `whole`: fields of objects, elements of lists from the first on.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() >= part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        (whole, part) => whole == part,
    }
}

/// The first block of the page that begins so, below a heading.
fn block<'p>(page: &'p str, heading: &str, fence: &str) -> &'p str {
    let section = page.split(heading).nth(1).unwrap();
    section.split(&format!("```{fence}\n")).nth(1).unwrap().split("```").next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_change_that_only_the_guard_catches_is_refused_as_the_page_says_and_no_request_fails() {
    let page = fs::read_to_string(PAGE).unwrap();
    let heading = "## Past check and diff, caught by the guard";
    let step = |name: &str| fs::read_to_string(format!("docs/gray-release/{name}.yaml")).unwrap();
    let instances: Vec<String> =
        (1..=8).map(|n| format!("web-{n} version={}", if n <= 4 { "1.2" } else { "1.3" })).collect();
    let instances: Vec<&str> = instances.iter().map(String::as_str).collect();
    let site = Site::new(&instances, &step("50")).await;
    fs::write(site.path("proxy.yaml"), block(&page, heading, "yaml config")).unwrap();
    let proxy = site.proxy(&["--config", site.path("proxy.yaml").to_str().unwrap()]).await;
    let rules = async || admin_get(proxy.admin, "/v1/rules").await.unwrap().1;
    let load = Load::start(proxy.listen, "shop.example.com", 300);
    until("requests were answered", async || load.good() > 100).await;

    site.write_rules(&step("office"));
    until("the change is refused", async || rules().await["last_reload"]["result"] == "guarded").await;
    let (said, told) = (rules().await, serde_json::from_str(block(&page, heading, "json")).unwrap());
    assert!(holds(&said, &told), "{PAGE} says {told:#}\nthe proxy says {said:#}");
    assert_eq!(said["files"][0]["text"], step("50"), "the rules before stay");
    let (status, ready) = admin_get(proxy.admin, "/ready").await.unwrap();
    assert_eq!((status, &ready["degraded"]), (200, &true.into()), "{ready}");
    until("the log says why", async || proxy.log().contains("refused by the guard")).await;

    site.write_rules(&step("100"));
    until("the next step is in force", async || rules().await["files"][0]["text"] == step("100")).await;
    until("that is told", async || rules().await["state"] == "as on disk").await;
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}
