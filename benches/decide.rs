//! `decide`, and `decide` with `pick`: 1, 100 and 2,000 rules; 50 regexes that do not match before a split.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use pointsman::engine::balance::{Asking, Tried, pick};
use pointsman::engine::diagnostic::Source;
use pointsman::engine::format::catalog_file;
use pointsman::engine::locality::Place;
use pointsman::engine::request::RequestView;
use pointsman::engine::route::{Decision, Outcome, Router, Scratch, decide};
use pointsman::engine::rules::parse_files;
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;

const POOLS: &str = "service: web\nhosts: [shop.example.com]\npools: {gray: version == 1.3, stable: version == 1.2}\n";
const SPLIT: &str = "  - {name: ramp, split: [{to: gray, share: 5%}, {to: stable, share: 95%}], key: [cookie.uid]}\n";

fn table(rules: &str) -> Table {
    let (set, out) = parse_files(&[Source::new("web.yaml", format!("{POOLS}rules:\n{rules}"))]);
    assert!(!out.has_errors(), "{}", out.render());
    let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
    let mut catalog = String::from("services:\n  web:\n");
    for at in 0..20 {
        let version = if at % 4 == 0 { "1.3" } else { "1.2" };
        let _ = writeln!(
            catalog,
            "    - {{id: w{at}, address: 127.0.0.1, port: {}, labels: {{version: '{version}'}}}}",
            at + 1
        );
    }
    let (catalog, out) = catalog_file::parse(&Source::new("catalog.yaml", catalog));
    assert!(!out.has_errors(), "{}", out.render());
    let mut live = LiveSet::default();
    let services = catalog
        .services
        .iter()
        .map(|(name, instances)| ServiceSnapshot::build(Arc::clone(name), 1, instances.clone(), &mut live, Millis(0)));
    let snapshot = Snapshot::new(services.collect::<Vec<_>>());
    Table::build(1, snapshot, Arc::new(router), Place::default(), Millis(0)).expect("a small catalog")
}

/// Rules that ask for an exact header, cookie, query parameter, path prefix or method in turn; then the split.
fn mixed(count: usize) -> String {
    let mut rules = String::new();
    for at in 1..count {
        let when = match at % 5 {
            0 => format!("header.x-user-group == group-{at}"),
            1 => format!("path under '/area-{at}' and method == GET"),
            2 => format!("cookie.tenant in [tenant-{at}, other-{at}]"),
            3 => format!("header.x-canary-{} == 'on' and header.x-user-group == team-{at}", at % 7),
            _ => format!("query.variant == variant-{at} or header.x-variant == variant-{at}"),
        };
        let _ = writeln!(rules, "  - {{name: r{at}, when: \"{when}\", to: gray}}");
    }
    rules + SPLIT
}

fn regexes(count: usize) -> String {
    let mut rules = String::new();
    for at in 0..count {
        let _ = writeln!(
            rules,
            "  - {{name: r{at}, when: \"path matches '/(api|v{at})/[a-z]+-{at}/[0-9]{{2,8}}'\", to: gray}}"
        );
    }
    rules + SPLIT
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "text/html,application/xhtml+xml"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "theme=dark; uid=8f14e45fceea167a; tenant=tenant-none"),
        ("x-user-group", "everyone"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn benches(criterion: &mut Criterion) {
    let headers = headers();
    let request = RequestView {
        method: &Method::GET,
        scheme: "http",
        host: "shop.example.com",
        path: "/cart/items/4711",
        query: Some("page=2"),
        headers: &headers,
        client: [10, 1, 2, 3].into(),
        sni: None,
        san: &[],
        trusted: true,
    };
    let cases = [
        ("1_rule", mixed(1)),
        ("100_rules", mixed(100)),
        ("2000_rules", mixed(2_000)),
        ("50_regexes_and_a_split", regexes(50)),
    ];
    for (name, rules) in cases {
        let table = table(&rules);
        let mut scratch = Scratch::new();
        let mut draws = Draw(1);
        criterion.bench_function(&format!("decide/{name}"), |bencher| {
            bencher.iter(|| decided(&table, black_box(&request), Draw(draws.advance()), &mut scratch));
        });
        criterion.bench_function(&format!("decide_and_pick/{name}"), |bencher| {
            bencher.iter(|| {
                let draw = Draw(draws.advance());
                let decision = decided(&table, black_box(&request), draw, &mut scratch);
                let Outcome::Pool(choice) = decision.outcome else { panic!("{decision:?}") };
                let (pool, endpoints) = (table.pool(0, choice.slot), table.endpoints(0));
                pick(pool, endpoints, &Asking::new(Millis(1), draw.fork(Draw::PICK), &Tried::default()), &mut NoTrace)
            });
        });
    }
}

fn decided(table: &Table, request: &RequestView<'_>, draw: Draw, scratch: &mut Scratch) -> Decision {
    decide(table, request, draw, scratch, &mut NoTrace)
}

criterion_group!(all, benches);
criterion_main!(all);
