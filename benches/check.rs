//! `check` of 1,000 rule files: the aim is 2 s. Reading, parsing, compiling and every lint, against a catalog.
//!
//! Run as a test (`cargo test --benches`) it is of ten files, once.

use std::fmt::Write as _;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::dry_run::check::{Named, check_against};
use pointsman::dry_run::load;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::format::catalog_file;
use pointsman::engine::rules::lint::{Against, Catalog};

const RULES: usize = 8;
const INSTANCES: usize = 6;

/// A file as people write them: a host, two pools, some rules with conditions, a keyed ramp.
fn file(n: usize) -> Arc<Source> {
    let mut text = format!(
        "service: svc-{n}\nhosts: [svc-{n}.example.com, '*.svc-{n}.example.com']\n\
         pools: {{gray: version == 1.3 and env == prod, stable: version == 1.2 and env == prod}}\nrules:\n"
    );
    for rule in 0..RULES {
        let when = match rule % 4 {
            0 => format!("path under '/part-{rule}' and header.x-user-group == group-{rule}"),
            1 => format!("header.x-tenant in [tenant-{rule}, tenant-{n}]"),
            2 => format!("path matches '/[a-z]+-{rule}/.*' and query.debug exists"),
            _ => format!("header.x-app-version >= 2.{rule} and not cookie.opt-out exists"),
        };
        let _ = writeln!(text, "  - {{name: rule-{rule}, when: \"{when}\", to: [gray, stable]}}");
    }
    text.push_str("  - {name: ramp, split: {gray: 5%, stable: 95%}, key: [cookie.uid], else: 503}\n");
    Source::new(format!("rules/svc-{n}.yaml"), text)
}

fn catalog(files: usize) -> Catalog {
    let mut text = String::from("services:\n");
    for n in 0..files {
        let _ = writeln!(text, "  svc-{n}:");
        for at in 0..INSTANCES {
            let version = if at % 2 == 0 { "1.3" } else { "1.2" };
            let labels = format!("{{version: \"{version}\", env: prod, region: eu}}");
            let _ = writeln!(text, "    - {{id: i{n}-{at}, address: 10.0.0.1, port: {}, labels: {labels}}}", at + 1);
        }
    }
    let (file, out) = catalog_file::parse(&Source::new("catalog.yaml", text));
    assert!(!out.has_errors(), "{}", out.render());
    file.services.into_iter().collect()
}

fn bench(c: &mut Criterion) {
    let files = if std::env::args().any(|arg| arg == "--test") { 10 } else { 1_000 };
    let sources: Vec<Arc<Source>> = (0..files).map(file).collect();
    let catalog = catalog(files);
    let mut group = c.benchmark_group("check");
    group.throughput(Throughput::Elements(files as u64)).sample_size(10);
    group.bench_function("files", |b| {
        b.iter(|| {
            let loaded = load::parse(sources.clone(), Vec::new());
            let against = Against { catalog: Some(&catalog), previous: None };
            let found = check_against(&loaded.rules, loaded.diagnostics, against, Named::default());
            assert_eq!(found.errors, 0, "{}", found.diagnostics.render());
            found.warnings
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
