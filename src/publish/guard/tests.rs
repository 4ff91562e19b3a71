use std::sync::Arc;

use super::*;
use crate::engine::format::traffic::TrafficLine;
use crate::engine::testing::{instance, service, table};

const HEAD: &str = "service: web\nhosts: [web.test]\npools: {old: version == 1, new: version == 2}\nrules:\n";
const TESTERS: &str = "  - {name: testers, when: header.x-user-group == test, to: new}\n";

fn at(rules: &str) -> Table {
    let one = |id: &str, port, version| Arc::new(instance("web", id, port, &[("version", version)]));
    table(&format!("{HEAD}{rules}"), vec![service("web", vec![one("a", 1, "1"), one("b", 2, "2")])]).unwrap()
}

/// A hundred requests, each with a user of its own; every second one is a tester's.
fn requests() -> Vec<TrafficRequest> {
    (0..100)
        .map(|n| {
            let group = if n % 2 == 0 { "test" } else { "none" };
            let line = format!(
                r#"{{"host":"web.test","headers":{{"x-user":"u{n}","x-user-group":"{group}"}},"draw":"{n:x}00000000"}}"#
            );
            TrafficLine::parse(&line).unwrap().request().unwrap()
        })
        .collect()
}

fn judged(old: &str, new: &str) -> Finding {
    let explain = [Explain::live("127.0.0.1:9900"), Explain::new(&["rules".into()], None, &[])];
    judge(requests(), Limits { max_moved: 300_000, max_unrouted: 0 }, &at(old), &at(new), explain)
}

#[test]
fn a_rule_that_shadows_another_is_a_surprise_over_the_limit() {
    let shadow = "  - {name: first, when: header.x-user != nobody, to: old}\n";
    let (old, new) =
        (format!("{TESTERS}  - {{name: all, to: old}}\n"), format!("{shadow}{TESTERS}  - {{name: all, to: old}}\n"));
    let finding = judged(&old, &new);
    assert_eq!(finding.exceeded, ["50.00% of the recent requests would go elsewhere by surprise, more than 30.00%"]);
    let class = &finding.report.classes[0];
    assert_eq!((class.from.words(), class.to.words()), ("web/testers to new".into(), "web/first to old".into()));
    assert!(class.examples[0].before.starts_with("pointsman explain --admin 127.0.0.1:9900 GET"), "{class:?}");
    assert!(finding.words().contains("shadowed"), "{}", finding.words());
}

#[test]
fn a_raised_weight_is_what_was_asked_for() {
    let split = |share: u32| {
        format!(
            "  - {{name: ramp, split: [{{to: new, share: {share}%}}, {{to: old, share: {}%}}], key: header.x-user}}\n",
            100 - share
        )
    };
    let finding = judged(&split(5), &split(95));
    assert!(finding.exceeded.is_empty(), "{:?}", finding.exceeded);
    assert!(finding.report.expected > 0.5, "{}", finding.report.expected);
}

#[test]
fn a_request_that_nobody_takes_any_more_is_one_too_many() {
    let finding = judged("  - {name: all, to: old}\n", "  - {name: some, when: header.x-user != u7, to: old}\n");
    assert_eq!(finding.exceeded, ["1 recent requests would be unrouted that were not before, more than 0"]);
}

#[test]
fn without_a_request_nothing_is_exceeded_and_that_is_said() {
    let explain = || Explain::live("127.0.0.1:9900");
    let rules = at("  - {name: all, to: old}\n");
    let finding = judge(Vec::new(), Limits { max_moved: 0, max_unrouted: 0 }, &rules, &rules, [explain(), explain()]);
    assert!(finding.exceeded.is_empty());
    assert!(finding.words().contains("nothing to compare"));
}
