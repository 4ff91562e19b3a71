//! What `check` calls proven is never refuted by a request, and every witness does what it says.

use std::sync::Arc;

use pointsman::dry_run::what_if::WhatIf;
use pointsman::dry_run::{explain, inputs};
use pointsman::engine::diagnostic::{Certainty, Diagnostic, Witness};
use pointsman::engine::format::catalog_file::CatalogFile;
use pointsman::engine::format::traffic::TrafficLine;
use pointsman::engine::locality::Place;
use pointsman::engine::route::Router;
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::lint_page::verdict;

fn test() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        5 => (0..3u8).prop_map(|n| format!("header.x-{n}")),
        2 => Just("cookie.c".to_owned()),
        2 => Just("query.q".to_owned()),
        2 => Just("label.l".to_owned()),
        2 => Just("method".to_owned()),
        1 => Just("host".to_owned()),
        1 => Just("scheme".to_owned()),
    ];
    let value = || prop_oneof![Just("a"), Just("b"), Just("ab"), Just("GET"), Just("1.2"), Just("http")];
    let op = prop_oneof![
        4 => value().prop_map(|v| format!("== {v}")),
        2 => value().prop_map(|v| format!("!= {v}")),
        3 => (value(), value()).prop_map(|(a, b)| format!("in [{a}, {b}]")),
        1 => (value(), value()).prop_map(|(a, b)| format!("not in [{a}, {b}]")),
        2 => prop_oneof![Just("a|b"), Just("a.*"), Just("[ab]+")].prop_map(|v| format!("matches '{v}'")),
        3 => Just("exists".to_owned()),
        1 => value().prop_map(|v| format!("starts {v}")),
        1 => value().prop_map(|v| format!("ends {v}")),
        1 => value().prop_map(|v| format!("contains {v}")),
        2 => prop_oneof![Just("<"), Just(">="), Just(">")].prop_map(|o| format!("{o} 1.2")),
    ];
    prop_oneof![
        10 => (field, op).prop_map(|(field, op)| format!("{field} {op}")),
        3 => prop_oneof![Just("path under '/a'"), Just("path under '/a/b'"), Just("path starts '/a'"), Just("path == '/a'")]
            .prop_map(Into::into),
        2 => prop_oneof![Just("10.0.0.0/8"), Just("10.1.0.0/16"), Just("0.0.0.0/0"), Just("'::/0'")]
            .prop_map(|net| format!("client.ip in [{net}]")),
        1 => prop_oneof![Just("5"), Just("50")].prop_map(|share| format!("percent(cookie.c) < {share}")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    test().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..3).prop_map(|parts| format!("({})", parts.join(" and "))),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" or "))),
            2 => inner.prop_map(|part| format!("(not {part})")),
        ]
    })
}

fn line() -> impl Strategy<Value = TrafficLine> {
    let value = || prop_oneof![Just("a"), Just("b"), Just("ab"), Just("abc"), Just("1.2"), Just("1.3"), Just("")];
    (
        prop_oneof![Just("GET"), Just("POST")],
        prop_oneof![Just("a"), Just("b"), Just("w.a")],
        prop_oneof![Just("/"), Just("/a"), Just("/a/b"), Just("/ab"), Just("/a?q=a"), Just("/a/b/c?q=b")],
        prop::collection::vec((0..3u8, value()), 0..4),
        prop::option::of(value()),
        prop_oneof![Just("10.1.0.1"), Just("10.2.0.1"), Just("192.0.2.1"), Just("2001:db8::1")],
        prop_oneof![Just("http"), Just("https")],
    )
        .prop_map(|(method, host, path, headers, cookie, client, scheme)| {
            let mut all: Map<String, Value> = headers.into_iter().map(|(n, v)| (format!("x-{n}"), v.into())).collect();
            all.extend(cookie.map(|value| ("cookie".to_owned(), format!("c={value}").into())));
            TrafficLine {
                method: method.into(),
                host: host.into(),
                path: path.into(),
                headers: all,
                client: client.parse().ok(),
                scheme: Some(scheme.into()),
                ..TrafficLine::default()
            }
        })
}

fn table(text: &str) -> Table {
    let source = pointsman::engine::diagnostic::Source::new("rules/web.yaml", text);
    let (set, out) = pointsman::engine::rules::parse_files(&[source]);
    assert!(!out.has_errors(), "{}", out.render());
    let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
    inputs::table(Arc::new(router), &CatalogFile { services: Vec::new() }, &WhatIf::default(), Place::default())
        .unwrap()
}

/// The file and the rule that a request gets.
fn taken(table: &Table, line: &TrafficLine) -> (bool, Option<String>) {
    let request = line.request().unwrap();
    let trusted = table.router.trusts(&request.host, &request.path, request.client);
    let told = explain::explain(table, &request.view(trusted), Draw(7), Millis(0));
    (told.file.is_some(), told.result.rule)
}

/// A witness as a traffic line, read from what is printed.
fn line_of(witness: &Witness) -> TrafficLine {
    let headers = witness.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    TrafficLine { headers, client: witness.client, ..TrafficLine::of_url(&witness.method, &witness.url).unwrap() }
}

fn rule_of(found: &Diagnostic) -> &str {
    found.message.split('`').nth(1).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_proven_is_refuted_and_every_witness_holds(
        rules in prop::collection::vec(prop_oneof![9 => expression().prop_map(Some), 1 => Just(None)], 1..6),
        places in prop_oneof![Just(""), Just("hosts: [a, '*.a']\n"), Just("paths: [/a]\n"), Just("hosts: [b]\npaths: [/a/b, /ab]\n")],
        trusted in prop_oneof![Just(""), Just("trusted: [10.0.0.0/8]\n")],
        lines in prop::collection::vec(line(), 60),
    ) {
        let mut text = format!("service: web\n{places}{trusted}labels: {{l: [header.x-2, cookie.c]}}\nrules:\n");
        for (n, when) in rules.iter().enumerate() {
            let when = when.as_ref().map_or(String::new(), |when| format!("    when: >-\n      {when}\n"));
            text.push_str(&format!("  - name: r{n}\n{when}    respond: {}\n", 200 + n));
        }
        let table = table(&text);
        let found = verdict(&text, None, None).diagnostics.0;
        let taken_by: Vec<_> = lines.iter().map(|line| taken(&table, line)).collect();
        for found in found.iter().filter(|found| found.certainty == Some(Certainty::Proven)) {
            if ["W009", "W011", "W012"].contains(&found.code) {
                let dead = rule_of(found);
                for ((_, rule), line) in taken_by.iter().zip(&lines) {
                    prop_assert_ne!(rule.as_deref(), Some(dead), "{}\n{}\n{:?}", text, found.render(), line);
                }
            }
        }
        for found in &found {
            let Some(witness) = &found.witness else { continue };
            let (file, rule) = taken(&table, &line_of(witness));
            prop_assert!(file, "{}\n{}", text, found.render());
            match found.code {
                "W009" | "W011" => prop_assert!(rule.is_some() && rule.as_deref() != Some(rule_of(found))),
                "W031" => prop_assert_eq!(rule, None),
                _ => prop_assert_eq!(Some(format!("goes to `{}`", rule.unwrap_or_default())), Some(witness.outcome.clone())),
            }
        }
        let uncaught = taken_by.iter().any(|(file, rule)| *file && rule.is_none());
        prop_assert!(!uncaught || found.iter().any(|found| found.code == "W031"), "{}", text);
    }
}
