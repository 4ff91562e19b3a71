//! What a replay says of each request is what `decide` and `explain` say, and a diff's exact figures are what many draws
//! come to.

use std::sync::Arc;

use http::HeaderMap;
use pointsman::dry_run::command::Explain;
use pointsman::dry_run::diff::{self, Comparison, Scratches, WHOLE, compare};
use pointsman::dry_run::explain::explain;
use pointsman::dry_run::inputs::{self, Rules};
use pointsman::dry_run::load;
use pointsman::dry_run::replay::{Counts, Luck, Placed, Redactions, Scene, place};
use pointsman::dry_run::traffic::Captured;
use pointsman::dry_run::traffic::stream::{Reading, Tally, run};
use pointsman::dry_run::what_if::WhatIf;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::format::catalog_file;
use pointsman::engine::format::traffic::{TrafficLine, TrafficRequest};
use pointsman::engine::locality::Place;
use pointsman::engine::route::{Outcome, Scratch, decide, spread};
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;
use proptest::prelude::*;

fn rules(text: &str) -> Rules {
    let loaded = load::parse(vec![Source::new("web.yaml", text)], Vec::new());
    inputs::compile(loaded, &["web.yaml".into()]).unwrap_or_else(|why| panic!("{text}\n{}", why.render()))
}

fn table(rules: &Rules, weights: &[u32]) -> Table {
    let mut text = String::from("services:\n  web:\n");
    for (at, weight) in weights.iter().enumerate() {
        let version = at % 3;
        text.push_str(&format!(
            "    - {{id: w{at}, address: 10.0.0.1, port: {}, weight: {weight}, labels: {{v: {version}}}}}\n",
            at + 1
        ));
    }
    let (catalog, out) = catalog_file::parse(&Source::new("catalog.yaml", text));
    assert!(out.0.is_empty(), "{}", out.render());
    inputs::table(Arc::clone(&rules.router), &catalog, &WhatIf::default(), Place::default()).expect("the rules fit")
}

/// Rules with three pools, a header rule, and a split with these weights.
fn file(arms: [u32; 3], key: &str, group: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("\n    key: {key}") };
    format!(
        "service: web\npools: {{a: v == 0, b: v == 1, c: v == 2}}\nelse: 410\nrules:\n  - {{name: r, when: path under '/r', redirect: {{location: /}}}}\n  - {{name: g, when: header.x-g == {group}, to: [a, b]}}\n  - name: s\n    when: not path under '/none'\n    split: [{{to: a, share: {}}}, {{to: [b, c], share: {}}}, {{to: c, share: {}}}]{key}\n",
        arms[0], arms[1], arms[2]
    )
}

fn arms() -> impl Strategy<Value = [u32; 3]> {
    prop::array::uniform3(0u32..8).prop_filter("some arm has a weight", |arms| arms.iter().sum::<u32>() > 0)
}

fn line() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec!["/", "/r/x", "/none", "/a/../r", "/x?y=1"]);
    (path, prop::option::of(0u32..3), prop::option::of(0u32..50), prop::option::of(any::<u64>())).prop_map(
        |(path, group, user, draw)| {
            let mut headers = serde_json::Map::new();
            group.into_iter().for_each(|group| drop(headers.insert("X-G".into(), format!("g{group}").into())));
            user.into_iter()
                .for_each(|user| drop(headers.insert("x-u".into(), serde_json::json!([format!("u{user}")]))));
            let mut line = serde_json::json!({"host": "A.example.com:80", "path": path, "headers": headers});
            draw.into_iter().for_each(|draw| line["draw"] = format!("{draw:016x}").into());
            line.to_string()
        },
    )
}

fn captured(line: &str) -> Captured {
    let request = TrafficLine::parse(line).and_then(|line| line.request()).expect("the line is one");
    Captured { request, redacted: Vec::new() }
}

/// Keeps where each line goes.
struct Kept<'t> {
    scene: &'t Scene<'t>,
    scratch: Scratch,
    placed: Vec<(u64, Placed)>,
}

impl Tally for Kept<'_> {
    fn request(&mut self, line: u64, captured: &Captured) {
        let draw = self.scene.luck.of(line, captured);
        self.placed.push((line, place(self.scene, captured, draw, &mut self.scratch)));
    }

    fn merge(&mut self, other: Self) {
        self.placed.extend(other.placed);
        self.placed.sort_by_key(|(line, _)| *line);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_replayed_request_is_decided_and_picked_as_decide_and_explain_do(
        arms in arms(),
        weights in prop::collection::vec(0u32..3, 1..7),
        lines in prop::collection::vec(line(), 1..60),
        keyed in any::<bool>(),
    ) {
        let rules = rules(&file(arms, if keyed { "header.x-u" } else { "" }, "g1"));
        let table = table(&rules, &weights);
        let luck = Luck::default();
        let scene = Scene { table: &table, luck, redactions: Redactions::of(&rules.router), explain: Explain::new(&[], None, &[]) };
        let text = lines.join("\n");
        let reading = Reading { format: None, host: "localhost".into(), threads: 2, strict: true };
        let kept = || Kept { scene: &scene, scratch: Scratch::new(), placed: Vec::new() };
        let placed = run(text.as_bytes(), &reading, kept, &mut |_| {}).unwrap().tally.placed;
        prop_assert_eq!(placed.len(), lines.len());
        let (mut routed, mut refused) = (0, 0);
        for ((number, placed), line) in placed.iter().zip(&lines) {
            let captured = captured(line);
            let (view, draw) = (captured.request.view(true), luck.of(*number, &captured));
            let decision = decide(&table, &view, draw, &mut Scratch::new(), &mut NoTrace);
            prop_assert_eq!(&placed.decision, &decision);
            let told = explain(&table, &view, draw, Millis(0)).result;
            let instance = placed.picked.map(|picked| table.endpoint(0, picked.endpoint).instance.id.to_string());
            prop_assert_eq!(told.instance, instance);
            routed += u64::from(placed.picked.is_some());
            refused += u64::from(matches!(placed.outcome, Outcome::Refuse { .. }));
        }
        let counts = run(text.as_bytes(), &reading, || Counts::new(&scene, None), &mut |_| {}).unwrap();
        let report = counts.tally.report(counts.requests, counts.skipped, &["v".to_owned()]);
        prop_assert_eq!((report.routed, report.unrouted), (routed, refused));
        for rows in [&report.instances, &report.labels["v"], &report.pools] {
            prop_assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), routed);
        }
        prop_assert_eq!(report.rules.iter().map(|row| row.requests).sum::<u64>(), lines.len() as u64);
    }

    #[test]
    fn an_exact_spread_is_what_many_draws_come_to(arms in arms(), weights in prop::collection::vec(0u32..3, 1..7)) {
        let rules = rules(&file(arms, "", "g1"));
        let table = table(&rules, &weights);
        let request = captured(r#"{"host":"a","path":"/"}"#).request;
        let decision = decide(&table, &request.view(true), Draw(0), &mut Scratch::new(), &mut NoTrace);
        let exact = spread(&table, &decision);
        prop_assert_eq!(exact.parts.iter().map(|part| part.weight).sum::<u64>(), exact.total);
        const DRAWS: u64 = 4_000;
        let mut scratch = Scratch::new();
        let mut counts = vec![0u64; exact.parts.len()];
        for draw in 0..DRAWS {
            let decision = decide(&table, &request.view(true), Draw(draw), &mut scratch, &mut NoTrace);
            let at = exact.parts.iter().position(|part| part.arm == decision.arm || exact.parts.len() == 1);
            counts[at.expect("no draw gives what the spread does not have")] += 1;
        }
        for (part, count) in exact.parts.iter().zip(counts) {
            let share = part.weight as f64 / exact.total as f64;
            prop_assert!((count as f64 / DRAWS as f64 - share).abs() < 0.05, "{exact:?} {count}");
        }
    }

    #[test]
    fn a_shift_is_a_distance(before in arms(), after in arms(), weights in prop::collection::vec(0u32..3, 1..7), line in line(), keyed in any::<bool>()) {
        let key = if keyed { "header.x-u" } else { "" };
        let (old, new) = (rules(&file(before, key, "g1")), rules(&file(after, key, "g2")));
        let (old, new) = (table(&old, &weights), table(&new, &weights));
        let request = captured(&line).request;
        let there = comparison(&old, &new, &request).shift(&old, &new);
        let back = comparison(&new, &old, &request).shift(&new, &old);
        prop_assert_eq!(there.moved, back.moved);
        prop_assert!(there.moved <= WHOLE);
        let parts: u64 = there.moves.iter().map(|found| found.part).sum();
        prop_assert!(parts.abs_diff(there.moved) <= 16, "{there:?}");
        prop_assert_eq!(comparison(&old, &old, &request).shift(&old, &old).moved, 0);
    }
}

fn comparison(old: &Table, new: &Table, request: &TrafficRequest) -> Comparison {
    compare(old, new, &request.view(true), true, request.draw.unwrap_or_default(), &mut Scratches::default())
}

#[test]
fn raising_an_unkeyed_share_moves_exactly_the_difference() {
    let (old, new) = (rules(&file([5, 0, 95], "", "x")), rules(&file([10, 0, 90], "", "x")));
    let (old, new) = (table(&old, &[1, 1, 1]), table(&new, &[1, 1, 1]));
    let request = captured(r#"{"host":"a","path":"/"}"#).request;
    let shift = comparison(&old, &new, &request).shift(&old, &new);
    assert_eq!((shift.moved, shift.moves.len()), (WHOLE / 20, 1));
    assert_eq!(
        (&*shift.moves[0].from.goal, &*shift.moves[0].to.goal, shift.moves[0].why),
        ("c", "a", diff::Why::Weights)
    );
    assert!(request.headers == HeaderMap::new());
}
