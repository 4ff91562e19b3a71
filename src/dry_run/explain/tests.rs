use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::dry_run::inputs::{place, table};
use crate::dry_run::what_if::WhatIf;
use crate::engine::balance::{Asking, Tried, pick};
use crate::engine::diagnostic::Source;
use crate::engine::format::catalog_file;
use crate::engine::format::explanation::Verdict;
use crate::engine::route::Router;
use crate::engine::rules::parse_files;

const RULES: &str = r#"service: web
hosts: [shop.example.com]
pools:
  stable: version == 1.2
  gray: version == 1.3
  none: version == 9
  turns: {select: version == 1.2, balance: round_robin}
  sick: {select: status == critical, panic: any}
  sicker: {select: status == critical, panic: fail}
lanes: {label: lane, base: [base]}
locality: {prefer: [region, zone]}
rules:
  - name: testers
    when: header.x-user-group == "test" and method == GET
    to: [none, gray]
  - name: versions
    when: header.x-version > 2 or cookie.beta exists
    to: [gray]
  - name: nobody
    when: path under "/none"
    to: [none]
    else: 502
  - name: moved
    when: path == "/old"
    redirect: {location: "/new", status: 301}
  - name: edited
    when: path under "/edited"
    to: stable
    mirror: {to: gray, share: 100%}
    rewrite: {path: /inner, host: inner.example.com}
    headers:
      request: {remove: [x-debug], set: {x-who: "{client.ip}/{header.x-user}", x-none: "{header.x-none}"}}
      response: {add: {x-served-by: pointsman}}
  - {name: turns, when: path under "/turns", to: turns}
  - {name: sick, when: path under "/sick", to: sick, else: 502}
  - {name: sicker, when: path under "/sicker", to: sicker, else: 502}
  - name: ramp
    split: {gray: 5%, stable: 95%}
    key: [cookie.uid]
labels: {team: header.x-team}
propagate: {label: team, header: x-team, baggage: team}
"#;

const CATALOG: &str = r#"services:
  web:
    - {id: w1, address: 127.0.0.1, port: 1, labels: {version: "1.2", region: eu, zone: eu-a}}
    - {id: w2, address: 127.0.0.1, port: 2, labels: {version: "1.2", region: eu, zone: eu-b}}
    - {id: w3, address: 127.0.0.1, port: 3, labels: {version: "1.3", region: us, zone: us-a}}
    - {id: w4, address: 127.0.0.1, port: 4, status: critical, labels: {version: "1.3", region: eu, zone: eu-a}}
    - {id: w5, address: 127.0.0.1, port: 5, labels: {version: "1.3", lane: feature-x}}
"#;

fn sample() -> Table {
    let (set, out) = parse_files(&[Source::new("web.yaml", RULES)]);
    assert!(!out.has_errors(), "{}", out.render());
    let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
    let (catalog, out) = catalog_file::parse(&Source::new("catalog.yaml", CATALOG));
    assert!(!out.has_errors(), "{}", out.render());
    table(Arc::new(router), &catalog, &WhatIf::default(), place(Some("eu"), Some("eu-a"))).unwrap()
}

fn plain(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        method: &http::Method::GET,
        scheme: "http",
        host: "shop.example.com",
        path: "/",
        query: None,
        headers,
        client: [127, 0, 0, 1].into(),
        sni: None,
        san: &[],
        trusted: true,
    }
}

fn told(path: &str, headers: &[(&'static str, &'static str)]) -> Explanation {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    let request = RequestView { path, ..plain(&map) };
    explain(&sample(), &request, Draw(7), Millis(0))
}

#[test]
fn a_tester_reaches_the_gray_pool_and_is_told_why() {
    let told = told("/cart", &[("x-user-group", "test")]);
    let result = &told.result;
    assert_eq!(
        (result.outcome, result.rule.as_deref(), result.pool.as_deref()),
        (Kind::Routed, Some("testers"), Some("gray"))
    );
    assert_eq!((result.instance.as_deref(), result.level), (Some("w3"), Some(2)));
    let steps: Vec<(&str, Option<&str>, bool)> =
        told.resort.iter().map(|step| (step.step.as_str(), step.pool.as_deref(), step.taken)).collect();
    assert_eq!(steps, [("preferred", Some("none"), false), ("preferred", Some("gray"), true)]);
    let left: Vec<(&str, &str)> =
        told.pools[1].left_out.iter().map(|left| (left.id.as_str(), left.why.as_str())).collect();
    assert_eq!(left, [("w4", "critical"), ("w5", "lane=feature-x")]);
    assert_eq!(told.rules[4].verdict, Verdict::NotTried);
}

#[test]
fn a_failed_rule_names_the_first_term_that_failed_with_the_actual_value() {
    let told = told("/cart", &[("x-user-group", "staff"), ("x-version", "new")]);
    let first = &told.rules[0].failed;
    assert_eq!(first.len(), 1);
    assert_eq!(
        (first[0].text.as_str(), first[0].actual.as_deref()),
        ("header.x-user-group == \"test\"", Some("staff"))
    );
    assert_eq!((first[0].line, first[0].column), (14, 11));
    let second: Vec<(Option<&str>, Option<&str>)> =
        told.rules[1].failed.iter().map(|term| (term.actual.as_deref(), term.note.as_deref())).collect();
    assert_eq!(second, [(Some("new"), Some("not a version, so the comparison is false")), (None, None)]);
    assert_eq!(told.result.rule.as_deref(), Some("ramp"));
    let split = told.split.unwrap();
    assert_eq!(split.arms.iter().map(|arm| arm.share.as_str()).collect::<Vec<_>>(), ["5%", "95%"]);
    assert_eq!(split.key, "a new cookie");
    assert!(told.result.set_cookie.unwrap().starts_with("pointsman-web=0."));
}

#[test]
fn a_key_is_shown_with_its_value_and_levels_with_their_loads() {
    let told = told("/", &[("cookie", "uid=ann")]);
    let split = told.split.as_ref().unwrap();
    assert_eq!((split.key.as_str(), split.value.as_deref()), ("cookie.uid", Some("ann")));
    let stable = told.pools.iter().find(|pool| pool.name == "stable").unwrap();
    assert_eq!(stable.levels.iter().map(|level| (level.rank, level.load)).collect::<Vec<_>>(), [(0, 100), (1, 0)]);
    let text = told.text();
    assert!(text.contains("by cookie.uid = \"ann\"") && text.contains("level 0 takes 100%: w1"), "{text}");
}

#[test]
fn refusals_and_redirects_say_what_they_are() {
    let none = told("/none/x", &[]);
    assert_eq!((none.result.outcome, none.result.status), (Kind::Refused, Some(502)));
    assert_eq!(none.resort.last().map(|step| step.step.as_str()), Some("rule_else"));
    let moved = told("/old", &[]);
    assert_eq!((moved.result.outcome, moved.result.status), (Kind::Redirect, Some(301)));
    assert_eq!(moved.result.detail.as_deref(), Some("/new"));
    assert!(moved.resort.is_empty());
}

#[test]
fn explaining_takes_no_probing_permit() {
    let table = sample();
    let endpoints = table.endpoints(0);
    let gray = endpoints.iter().find(|endpoint| &*endpoint.instance.id == "w3").unwrap();
    gray.live.eject(Millis(0), 1_000);
    let table = table.with_health(2, &[Arc::clone(&gray.live)], Millis(0));
    let later = Millis(60_000);
    let headers = HeaderMap::new();
    let request = RequestView { path: "/cart", ..plain(&headers) };
    for seed in 0..50 {
        drop(explain(&table, &request, Draw(seed), later));
    }
    let pool = table.files[0].pools.iter().find(|pool| &*pool.name == "gray").unwrap();
    let waits = crate::engine::balance::probe(pool, table.endpoints(0), later);
    assert_eq!(waits.map(|at| &*table.endpoint(0, at).instance.id), Some("w3"), "the permit is still there");
}

#[test]
fn panic_is_a_step_of_its_own_before_else() {
    let told_sick = told("/sick", &[]);
    assert_eq!(told_sick.result.instance.as_deref(), Some("w4"));
    let last = told_sick.resort.last().unwrap();
    assert_eq!((last.step.as_str(), last.pool.as_deref(), last.taken), ("panic", Some("sick"), true));
    assert!(
        told_sick.text().contains("pick     w4 from sick at level 0: panic, whatever its health"),
        "{}",
        told_sick.text()
    );
    let sicker = told("/sicker", &[]);
    assert_eq!(sicker.result.status, Some(503), "`fail` ends it before `else`: {}", sicker.text());
}

#[test]
fn in_turns_it_is_said_that_a_dry_run_draws() {
    let turns = told("/turns", &[]);
    assert!(turns.pick.as_ref().is_some_and(|pick| pick.turns));
    assert!(turns.text().contains("who has the turn at the worker"), "{}", turns.text());
    assert!(!told("/", &[]).text().contains("turn at the worker"));
}

#[test]
fn programs_read_back_what_was_written() {
    let told = told("/cart", &[]);
    let json = serde_json::to_string(&told).unwrap();
    let read: Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!(read.text(), told.text());
}

#[test]
fn the_recorder_decides_as_the_live_path_does() {
    use crate::engine::trace::NoTrace;
    let table = Arc::new(sample());
    let mut scratch = Scratch::new();
    for draw in 0..300u64 {
        let mut headers = HeaderMap::new();
        if draw % 3 == 0 {
            headers.insert("cookie", HeaderValue::from_str(&format!("uid=u{draw}")).unwrap());
        }
        let request = plain(&headers);
        let live = decide(&*table, &request, Draw(draw), &mut scratch, &mut NoTrace);
        let Outcome::Pool(choice) = live.outcome else { panic!("{live:?}") };
        let pool = table.pool(0, choice.slot);
        let (endpoints, luck) = (table.endpoints(0), Draw(draw).fork(Draw::PICK));
        let picked = pick(pool, endpoints, &Asking::new(Millis(0), luck, &Tried::default()), &mut NoTrace).unwrap();
        let told = explain(&table, &request, Draw(draw), Millis(0));
        assert_eq!(told.result.pool.as_deref(), Some(&*pool.name));
        assert_eq!(told.result.instance.as_deref(), Some(&*endpoints[picked.endpoint as usize].instance.id));
    }
}

#[test]
fn what_is_changed_in_the_messages_is_told_as_it_will_be_sent() {
    let text = told("/edited/7", &[("x-user", "u1"), ("x-team", "red hot")]).text();
    let expected = "rewrite  /inner/7, Host inner.example.com\n\
                    mirror   100% of requests to gray: this request is copied\n\
                    carried  x-team: red hot, baggage team=red%20hot\n\
                    request  remove x-debug\n\
                    request  set x-who: 127.0.0.1/u1\n\
                    request  remove x-none\n\
                    answer   add x-served-by: pointsman\n";
    assert!(text.contains(expected), "{text}");
    assert!(!told("/cart", &[]).text().contains("rewrite"));
}
