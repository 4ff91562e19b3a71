//! The direction of the code, kept by a test: who may import whom (DESIGN: docs/ARCHITECTURE.md has the table), what a
//! folder must not know, and how files are kept tidy. Each failure names the file, the line and the rule.
//!
//! To change the design, change `LAYERS` here and the table in docs/ARCHITECTURE.md in the same commit.

mod named;
mod scan;
mod tidy;

use std::fs;
use std::path::{Path, PathBuf};

/// What one module of `src/` may know of the others.
struct Layer {
    module: &'static str,
    /// Modules it may import. `engine::table` allows that part only; `*` allows all.
    may: &'static [&'static str],
    /// Parts of what it may import that it must not know all the same.
    not: &'static [&'static str],
    /// Other crates, and parts of std, that it must not name.
    outside: Outside,
}

enum Outside {
    /// std but for `FORBIDDEN_TO_ENGINE`, and only these crates.
    Pure(&'static [&'static str]),
    /// Everything but these paths.
    Not(&'static [&'static str]),
}

/// No file, clock, luck, thread, socket, environment or lock: time and luck are arguments.
const FORBIDDEN_TO_ENGINE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::hash::RandomState",
];

const PURE_CRATES: &[&str] = &[
    "bytes",
    "http",
    "ipnet",
    "regex",
    "regex_automata",
    "regex_syntax",
    "rustc_hash",
    "saphyr_parser",
    "semver",
    "serde",
    "serde_json",
    "smallvec",
    "thiserror",
    "xxhash_rust",
];

const LAYERS: &[Layer] = &[
    Layer { module: "engine", may: &[], not: &[], outside: Outside::Pure(PURE_CRATES) },
    Layer { module: "files", may: &[], not: &[], outside: Outside::Not(&["hyper", "axum"]) },
    Layer { module: "debug_token", may: &[], not: &[], outside: Outside::Not(&["hyper", "axum", "tokio"]) },
    Layer { module: "tls_files", may: &[], not: &[], outside: Outside::Not(&["hyper", "axum", "tokio"]) },
    Layer { module: "observe", may: &["engine"], not: &[], outside: Outside::Not(&["hyper", "axum"]) },
    Layer {
        module: "config",
        may: &["engine"],
        not: &["engine::rules", "engine::route", "engine::table", "engine::snapshot", "engine::balance"],
        outside: Outside::Not(&["hyper", "axum"]),
    },
    Layer {
        module: "catalog",
        may: &["engine", "files", "tls_files", "observe"],
        not: &["engine::rules", "engine::route", "engine::table", "engine::balance"],
        outside: Outside::Not(&["axum"]),
    },
    Layer {
        module: "upstream",
        may: &["engine", "tls_files", "observe"],
        not: &["engine::rules", "engine::route"],
        outside: Outside::Not(&["axum"]),
    },
    Layer {
        module: "publish",
        may: &["engine", "files", "catalog", "observe", "dry_run"],
        not: &[],
        outside: Outside::Not(&["hyper", "axum"]),
    },
    Layer {
        module: "forward",
        may: &["engine", "debug_token", "upstream", "observe", "dry_run::diff"],
        not: &[],
        outside: Outside::Not(&["axum", "std::sync::Mutex", "std::sync::RwLock", "std::fs", "std::env", "tokio::fs"]),
    },
    Layer {
        module: "server",
        may: &["forward", "tls_files", "observe", "engine::table", "engine::time", "upstream::wire"],
        not: &[],
        outside: Outside::Not(&["axum", "std::sync::RwLock"]),
    },
    Layer {
        module: "admin",
        may: &["engine", "debug_token", "publish", "observe", "dry_run"],
        not: &[],
        outside: Outside::Not(&[]),
    },
    Layer {
        module: "dry_run",
        may: &["engine"],
        not: &[],
        outside: Outside::Not(&["tokio", "hyper", "hyper_util", "axum", "tower", "notify", "std::net::TcpStream"]),
    },
    Layer { module: "serve", may: &["*"], not: &[], outside: Outside::Not(&[]) },
    Layer { module: "cli", may: &["*"], not: &[], outside: Outside::Not(&[]) },
];

/// The rules that the source of `module` breaks, as `line: what`.
fn breaches(module: &[String], text: &str) -> Vec<String> {
    let Some(top) = module.first() else { return Vec::new() };
    let Some(layer) = LAYERS.iter().find(|layer| layer.module == top) else {
        return vec![format!("1: `{top}` is not in the table of layers")];
    };
    let mut out: Vec<String> = scan::references(module, text)
        .iter()
        .filter_map(|reference| layer.breach(&reference.path).map(|why| format!("{}: {why}", reference.line)))
        .collect();
    out.dedup();
    out
}

impl Layer {
    fn breach(&self, path: &[String]) -> Option<String> {
        let named = path.join("::");
        let Some(inside) = named.strip_prefix("crate::") else { return self.outside(&named) };
        let top = inside.split("::").next().unwrap_or_default();
        if top == self.module {
            return None;
        }
        if !LAYERS.iter().any(|layer| layer.module == top) {
            return Some(format!("`{named}`: `{top}` is not in the table of layers; name things by their module"));
        }
        let allowed = self.may.iter().any(|may| *may == "*" || touches(inside, may) && !reaches_over(inside, may));
        if !allowed {
            return Some(format!("`{}` must not import `{named}`; it may import {:?}", self.module, self.may));
        }
        let not = self.not.iter().find(|not| touches(inside, not) && inside != top)?;
        Some(format!("`{}` must not know `{not}` (`{named}`)", self.module))
    }

    fn outside(&self, named: &str) -> Option<String> {
        let forbidden = match self.outside {
            Outside::Pure(_) => FORBIDDEN_TO_ENGINE,
            Outside::Not(forbidden) => forbidden,
        };
        if forbidden.iter().any(|path| touches(named, path)) && named.contains("::") {
            return Some(format!("`{}` must not know `{named}`", self.module));
        }
        let root = named.split("::").next().unwrap_or_default();
        match self.outside {
            Outside::Pure(crates) if dependencies().iter().any(|name| name == root) && !crates.contains(&root) => {
                Some(format!("`{}` is pure and must not use the crate `{root}`", self.module))
            }
            _ => None,
        }
    }
}

/// Whether a named path is `rule`, lies in it, or is a glob that brings it in.
fn touches(named: &str, rule: &str) -> bool {
    let under = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with("::"));
    under(named, rule) || named.strip_suffix("::*").is_some_and(|parent| under(rule, parent))
}

/// Whether a glob brings in more than `may`.
fn reaches_over(named: &str, may: &str) -> bool {
    named.strip_suffix("::*").is_some_and(|parent| parent.len() < may.len())
}

/// The crates of Cargo.toml, as Rust spells them.
fn dependencies() -> &'static [String] {
    static NAMES: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
        let mut section = "";
        let mut names = Vec::new();
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]") {
                names.extend(line.split_once('=').map(|(name, _)| name.trim().replace('-', "_")));
            }
        }
        names
    });
    &NAMES
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under a folder of the package whose names end in `.ext`, sorted, by their path from its root.
fn files(folder: &str, ext: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.expect("a folder that can be read");
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ext) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `src/engine/rules/mod.rs` is `["engine", "rules"]`.
fn module_of(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix("src").unwrap_or(path).with_extension("");
    let mut module: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

#[test]
fn nobody_imports_against_the_direction() {
    let found: Vec<String> = files("src", "rs")
        .iter()
        .filter(|path| !tidy::is_test(path))
        .flat_map(|path| {
            let place = path.display().to_string();
            breaches(&module_of(path), &read(path)).into_iter().map(move |what| format!("{place}:{what}"))
        })
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn check(module: &str, text: &str, expected: &[&str]) {
    let module: Vec<String> = module.split("::").map(str::to_owned).collect();
    let found = breaches(&module, text);
    assert_eq!(found.len(), expected.len(), "{text}\n{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} should contain {expected:?}");
    }
}

#[test]
fn an_edge_that_the_table_forbids_is_found_however_it_is_written() {
    check("engine::route", "\nuse crate::publish::Publisher;", &["2: `engine` must not import `crate::publish"]);
    check("engine::route", "use super::super::forward;", &["must not import `crate::forward`"]);
    check("engine::route", "fn f() { crate::admin::g() }", &["must not import `crate::admin::g`"]);
    check("engine", "mod x { use super::super::serve::run; }", &["must not import `crate::serve::run`"]);
    check(
        "forward",
        "use crate::{engine::table::Table, catalog::{self, consul}};",
        &["crate::catalog", "crate::catalog"],
    );
    check("forward", "use crate::{upstream, catalog};", &["`crate::catalog`"]);
    check("catalog", "use crate::engine::{label::Text, route::Router as R};", &["must not know `engine::route`"]);
    check("server", "use crate::engine::route::decide;", &["must not import `crate::engine::route::decide`"]);
    check("server", "use crate::engine::*;", &["must not import `crate::engine::*`"]);
    check("attic", "fn f() {}", &["`attic` is not in the table"]);
    check("serve", "use crate::attic::x;", &["`attic` is not in the table"]);
}

#[test]
fn the_engine_has_no_clock_file_luck_or_runtime() {
    check("engine", "use tokio::sync::Notify;", &["must not use the crate `tokio`"]);
    check("engine", "fn f() { tracing::info!(1) }", &["must not use the crate `tracing`"]);
    check("engine", "use std::{fs, time::{Duration, Instant}};", &["std::fs", "std::time::Instant"]);
    check(
        "engine",
        "use std::time;\nfn f() { time::SystemTime::now(); }",
        &["2: `engine` must not know `std::time::Sys"],
    );
    check("engine", "use std::time::*;", &["std::time::*"]);
    check("dry_run", "use hyper_util::rt::TokioIo;", &["hyper_util::rt"]);
    check("forward", "use std::sync::{Arc, Mutex};", &["std::sync::Mutex"]);
}

#[test]
fn what_is_allowed_or_is_no_code_is_left_alone() {
    check("engine::route", "use super::label::Text; use http::Method; use std::time::Duration;", &[]);
    check("engine", "// use tokio::x;\n/* tokio::y /* z */ */ const A: &str = \"crate::serve::x\";", &[]);
    check("engine", "const A: &str = r#\"use \" tokio::x\"#; fn f<'a>(c: char) { c == '\"' || c == '\\''; }", &[]);
    check("engine", "#[cfg(test)]\nmod tests { use std::fs; fn f() { tokio::spawn(1) } }", &[]);
    check("server", "use crate::engine::table::Table; use crate::engine::time::{Draw, Millis};", &[]);
    check("publish", "use crate::{catalog::CatalogUpdate, dry_run, engine::table::Table};", &[]);
    check("engine", "impl X { fn f(&self) -> impl Iterator<Item = u8> + use<'_> { self::g() } }", &[]);
}

#[test]
fn code_after_a_test_module_is_still_read() {
    check("engine", "#[cfg(test)]\nmod tests { fn f() {} }\nuse tokio::spawn;", &["3: "]);
    check("engine", "#[cfg(test)]\nuse std::fs;\nuse std::env;", &["3: `engine` must not know `std::env`"]);
}
