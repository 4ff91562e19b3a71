//! The demo: what it prints can be pasted, and shows what it promises.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::binary::PATIENCE;

struct Demo {
    child: Child,
    /// The lines that are commands, in order.
    commands: Vec<String>,
    /// `http://ADDR/` of the proxy.
    proxy: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["demo", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let (lines, read) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let (mut commands, mut proxy) = (Vec::new(), String::new());
        loop {
            let line = read.recv_timeout(PATIENCE).expect("it says what to try");
            if line.starts_with("Ctrl-C") {
                break;
            }
            if let Some(url) = line.strip_prefix("  proxy    ") {
                proxy = url.trim().to_owned();
            }
            if !line.is_empty() && !line.starts_with([' ', '#']) && !line.contains("pointsman demo:") && !line.contains("Paste") {
                commands.push(line);
            }
        }
        let demo = Self { child, commands, proxy };
        let start = Instant::now();
        while !sh(&format!("curl -s {}", demo.proxy)).starts_with("web-") {
            assert!(start.elapsed() < PATIENCE, "the demo does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        demo
    }

    /// Pastes the next command.
    fn paste(&mut self) -> String {
        sh(&self.commands.remove(0))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    assert!(out.status.success() || command.starts_with("curl"), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn counts(uniq: &str) -> BTreeMap<String, usize> {
    let pairs = uniq.lines().map(|line| line.trim().split_once(' ').expect("a count and a word"));
    pairs.map(|(count, word)| (word.to_owned(), count.parse().expect("a count"))).collect()
}

fn word<'l>(line: &'l str, key: &str) -> &'l str {
    line.split(' ').find_map(|word| word.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

#[test]
fn every_printed_command_shows_what_it_promises() {
    let mut demo = Demo::start();
    assert_eq!(demo.commands.len(), 10, "{:#?}", demo.commands);

    let tester = demo.paste();
    assert!(tester.contains("version=1.3"), "{tester}");

    let users = counts(&demo.paste());
    let gray = users["version=1.3"];
    assert_eq!(gray + users["version=1.2"], 400, "{users:?}");
    assert!((6..=38).contains(&gray), "5 % of 400 users: {users:?}");
    println!("of 400 users {gray} reach 1.3");
    let same: BTreeSet<String> = demo.paste().lines().map(|line| word(line, "version=").to_owned()).collect();
    assert_eq!(same.len(), 1, "{same:?}");

    let explained = demo.paste();
    assert!(explained.contains("cookie.uid") && explained.contains("pool"), "{explained}");

    assert_eq!(demo.paste().trim(), "web-1 is stopped");
    let statuses = counts(&demo.paste());
    assert_eq!(statuses, BTreeMap::from([("200".to_owned(), 200)]));
    assert_eq!(demo.paste().trim(), "web-1 runs");
    let began = Instant::now();
    while !sh(&format!("curl -s -b uid=7 {}", demo.proxy)).contains("web-1 ") {
        assert!(began.elapsed() < PATIENCE, "web-1 does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("web-1 takes traffic {:?} after its start", began.elapsed());

    let before = sh(&format!("for n in 1 2 3 4 5; do curl -s -b uid=7 {}; done", demo.proxy));
    assert!(before.lines().all(|line| word(line, "region=") == "eu"), "{before}");
    assert_eq!(demo.paste().lines().count(), 2);
    let away = demo.paste();
    assert!(away.lines().count() == 5 && away.lines().all(|line| word(line, "region=") == "us"), "{away}");
    assert_eq!(demo.paste().lines().count(), 2);
    let began = Instant::now();
    while !sh(&format!("curl -s -b uid=7 {}", demo.proxy)).contains("region=eu") {
        assert!(began.elapsed() < PATIENCE, "the home region does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("the home region is back after {:?}", began.elapsed());

    let pid = demo.child.id();
    crate::support::binary::signal(pid, "INT");
    let ended = demo.child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0));
}
