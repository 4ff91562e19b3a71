//! `replay` and `diff` over a million requests, 100 rules, 1,000 instances: the aim is 5 s on 2 cores.
//!
//! One iteration is 100,000 requests, so a tenth of that. `lines/s` is what criterion calls elements a second. Run as a
//! test (`cargo test --benches`) it is 500 requests, once.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::dry_run::command::Explain;
use pointsman::dry_run::diff::{self, Moves};
use pointsman::dry_run::inputs::{self, Rules};
use pointsman::dry_run::load;
use pointsman::dry_run::replay::{Counts, Luck, Redactions, Scene};
use pointsman::dry_run::traffic::stream::{Reading, run};
use pointsman::dry_run::what_if::WhatIf;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::format::catalog_file;
use pointsman::engine::locality::Place;
use pointsman::engine::table::Table;
use pointsman::engine::time::Draw;

const RULES: u64 = 100;
const INSTANCES: u64 = 1_000;

fn rules(share: u32) -> Rules {
    let mut text = String::from("service: web\npools: {gray: version == 1.3, stable: version == 1.2}\nrules:\n");
    for n in 0..RULES - 1 {
        let when = match n % 3 {
            0 => format!("path under '/part-{n}' and header.x-user-group == group-{n}"),
            1 => format!("header.x-tenant == tenant-{n}"),
            _ => format!("path matches '/[a-z]+-{n}/.*' and query.debug exists"),
        };
        let _ = writeln!(text, "  - {{name: rule-{n}, when: \"{when}\", to: [gray, stable]}}");
    }
    let rest = 100 - share;
    let _ = writeln!(text, "  - {{name: ramp, split: {{gray: {share}%, stable: {rest}%}}, key: [header.x-user-id]}}");
    let loaded = load::parse(vec![Source::new("web.yaml", text)], Vec::new());
    inputs::compile(loaded, &["web.yaml".into()]).unwrap_or_else(|why| panic!("{}", why.render()))
}

fn table(rules: &Rules) -> Table {
    let mut text = String::from("services:\n  web:\n");
    for n in 0..INSTANCES {
        let version = if n % 10 == 0 { "1.3" } else { "1.2" };
        let address = format!("10.0.{}.{}", n / 250, n % 250);
        let labels = format!("{{version: \"{version}\", region: r{}}}", n % 3);
        let _ = writeln!(text, "    - {{id: web-{n}, address: {address}, port: 80, labels: {labels}}}");
    }
    let (catalog, out) = catalog_file::parse(&Source::new("catalog.yaml", text));
    assert!(out.0.is_empty(), "{}", out.render());
    inputs::table(Arc::clone(&rules.router), &catalog, &WhatIf::default(), Place::default())
        .expect("the rules fit the catalog")
}

/// As our access log writes it.
fn traffic(requests: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut luck = Draw(7);
    for n in 0..requests {
        let (part, user) = (luck.below(RULES), luck.below(50_000));
        let mut headers = format!("\"x-user-id\":\"u-{user}\"");
        match luck.below(4) {
            0 => headers.push_str(&format!(",\"x-tenant\":\"tenant-{part}\"")),
            1 => headers.push_str(&format!(",\"x-user-group\":\"group-{part}\"")),
            _ => {}
        }
        let _ = writeln!(
            out,
            r#"{{"ts":"2026-11-22T10:00:00.123Z","method":"GET","host":"shop.example.com","path":"/part-{part}/item?n={n}","headers":{{{headers}}},"client":"10.1.2.3","scheme":"http","sni":null,"san":[],"generation":7,"draw":"{n:016x}","result":{{"status":200,"service":"web","rule":"ramp","pool":"stable","instance":"web-1","labels":{{"version":"1.2"}},"attempts":1,"bytes_in":0,"bytes_out":512,"duration_us":900}}}}"#
        );
    }
    out
}

fn bench(c: &mut Criterion) {
    let (old, new) = (rules(5), rules(10));
    let (before, after) = (table(&old), table(&new));
    let requests = if std::env::args().any(|arg| arg == "--test") { 500 } else { 100_000 };
    let traffic = traffic(requests);
    let explain = Explain::new(&[], None, &[]);
    let reading = Reading { format: None, host: "localhost".into(), threads: 2, strict: false };
    let replay = Scene {
        table: &before,
        luck: Luck::default(),
        redactions: Redactions::of(&old.router),
        explain: explain.clone(),
    };
    let moves = diff::Scene {
        old: &before,
        new: &after,
        luck: Luck::default(),
        redactions: [Redactions::of(&old.router), Redactions::of(&new.router)],
        explain: [explain.clone(), explain],
    };
    let mut group = c.benchmark_group("dry_run");
    group.throughput(Throughput::Elements(requests)).sample_size(10);
    group.bench_function("replay", |b| {
        b.iter(|| {
            let counted =
                run(&traffic[..], &reading, || Counts::new(&replay, None), &mut |_| {}).expect("it is in memory");
            counted.tally.report(counted.requests, counted.skipped, &["version".into()])
        });
    });
    group.bench_function("diff", |b| {
        b.iter(|| {
            let counted = run(&traffic[..], &reading, || Moves::new(&moves), &mut |_| {}).expect("it is in memory");
            counted.tally.report(counted.skipped)
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
