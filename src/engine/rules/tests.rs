use proptest::prelude::*;

use super::*;
use crate::engine::diagnostic::Severity;
use crate::engine::policy::{Balance, Min, Panic, Probe};

fn set(text: &str) -> RuleSet {
    let (set, out) = parse_files(&[Source::new("t.yaml", text)]);
    assert!(out.0.is_empty(), "{}", out.render());
    set
}

fn codes(texts: &[&str]) -> Vec<&'static str> {
    let sources: Vec<_> = texts.iter().enumerate().map(|(i, text)| Source::new(format!("{i}.yaml"), *text)).collect();
    parse_files(&sources).1.0.iter().map(|found| found.code).collect()
}

const WHOLE_FILE: &str = r#"
service: web
hosts: [Shop.Example.com., "*.shop.example.com"]
paths: [/cart/, /checkout]
labels:
  lane: [header.x-lane, cookie.lane, "base"]
  group: header.x-user-group
propagate: {label: lane, header: x-lane, baggage: lane}
trusted: [10.0.0.0/8]
lanes: {label: lane, base: [base, main]}
pools:
  stable: version == 1.2 and env == prod
  gray: {version: 1.3, env: [prod, pre]}
  lane: lane == label.lane
  long:
    select: >-
      version >= 1
      and tags contains http
    min: 30%
    accept: [passing]
    panic: any
    balance: hash(cookie.uid)
    max_ejection_percent: 10%
    min_routable: 2
locality: {prefer: [region, zone], spill: 1.5, failback: 5s, min_local: 2}
timeout: {connect: 250ms, total: 5m}
retry: {attempts: 2, on: [connect, 503], budget: 10%}
balance: round_robin
headers: {request: {set: {x-a: b}, add: {x-c: [d, e]}, remove: [x-f]}, response: {remove: [server]}}
rewrite: {path: /api, host: internal.example.com}
mirror: {to: gray, share: 1%}
limit: {concurrency: 100, rate: 100/s, key: client.ip}
check: {http: {path: /health, host: web}, expect: {status: [200, 210-299], header: {x-service: web}}, interval: 1s}
eject: {consecutive_5xx: 3, success_rate: 70%, stdev_factor: 1.9, enforce: false}
slow_start: 30s
rules:
  - name: lanes
    when: label.lane != "base"
    to: [lane, stable]
  - name: ramp
    when: method == GET
    split: {gray: 5%, stable: 95%}
    key: [cookie.uid, header.x-user-id, label.group]
    mint: false
    salt: ramp-2026
    epoch: 3
    else: 503
    retry: {attempts: 1}
  - name: weights
    when: path matches '/cart/[0-9]+'
    split: [{to: [gray, stable], share: 1}, {to: stable, share: 9}]
  - {name: moved, when: path == "/checkout/old", redirect: {status: 301, location: /checkout}}
  - {name: teapot, respond: {status: 418, body: short and stout}}
else: any
tests:
  - request: GET https://shop.example.com/cart?x=1
    headers: {x-user-group: test}
    client: 10.0.0.1
    expect: {rule: ramp, share: {gray: 5%}}
"#;

#[test]
fn every_key_of_the_language_is_read() {
    let set = set(WHOLE_FILE);
    let file = &set.files[0];
    assert_eq!(file.hosts[0].value, HostPattern::Exact("shop.example.com".into()));
    assert_eq!(file.hosts[1].value, HostPattern::Wildcard("shop.example.com".into()));
    assert_eq!(&*file.paths[0].value, "/cart");
    assert_eq!(file.labels[0].sources.len(), 3);
    assert!(matches!(&file.labels[0].sources[2], LabelSource::Fixed(text) if &**text == "base"));
    assert_eq!(file.lanes.as_ref().unwrap().base.len(), 2);
    let long = &file.pools[3];
    assert_eq!((long.min, long.accept, long.panic), (Min::Share(300_000), (true, false), Some(Panic::Any)));
    assert_eq!(long.balance, Some(Balance::Hash("cookie.uid".into())));
    assert_eq!(file.locality.as_ref().unwrap().spill, 1_500);
    let timeouts = file.policies.timeout.unwrap();
    assert_eq!((timeouts.connect, timeouts.total, timeouts.idle), (250, 300_000, 60_000));
    let retry = file.policies.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, retry.connect, retry.reset, retry.statuses.as_slice()), (2, true, false, &[503][..]));
    assert_eq!(file.policies.message.limit.as_ref().unwrap().rate_milli, 100_000);
    assert_eq!(file.policies.message.headers.as_ref().unwrap().request.add.len(), 2);
    let check = file.check.as_ref().unwrap();
    assert!(matches!(&check.probe, Probe::Http { statuses, .. } if statuses == &[(200, 200), (210, 299)]));
    assert_eq!((file.eject.as_ref().unwrap().stdev_factor, file.slow_start.window), (1_900, 30_000));
    let Action::Split(ramp) = &file.rules[1].action else { panic!("a split") };
    assert_eq!(ramp.arms.iter().map(|arm| arm.weight).collect::<Vec<_>>(), [50_000, 950_000]);
    assert_eq!((&*ramp.salt, ramp.epoch, ramp.mint, ramp.key.len()), ("ramp-2026", 3, false, 3));
    let Action::Split(weights) = &file.rules[2].action else { panic!("a split") };
    assert!(!weights.percents && weights.mint && weights.arms[0].to.len() == 2);
    assert_eq!(&*weights.salt, "weights");
    assert!(matches!(file.rules[3].action, Action::Redirect { status: 301, .. }));
    assert_eq!(file.fallback.as_ref().unwrap().value, Else::Any);
    assert_eq!(file.tests[0].host.as_deref(), Some("shop.example.com"));
    assert_eq!(file.tests[0].expect.share[0].1, 50_000);
}

#[test]
fn an_almost_empty_file_takes_the_defaults() {
    let set = set("service: web\n");
    let file = &set.files[0];
    assert!(file.hosts.is_empty() && file.rules.is_empty() && file.trusted.is_none());
    assert_eq!(&*file.paths[0].value, "/");
}

#[test]
fn errors_of_all_files_come_in_one_run_and_sound_files_are_kept() {
    let bad = "service: web\nhsots: [a]\npools: {a: x = y}\nrules: [{name: r, to: b}]\n";
    let (set, out) = parse_files(&[
        Source::new("b.yaml", bad),
        Source::new("a.yaml", "service: [\n"),
        Source::new("c.yaml", "service: api\npaths: [/c]\n"),
    ]);
    let found: Vec<_> = out.0.iter().map(|d| (d.source.name.as_str(), d.code)).collect();
    assert_eq!(found, [("a.yaml", "E000"), ("b.yaml", "E001"), ("b.yaml", "E020"), ("b.yaml", "E012")]);
    assert_eq!(set.files.len(), 1);
    assert_eq!(&*set.files[0].service.value, "api");
}

#[test]
fn files_may_not_claim_the_same_pair_nor_disagree_on_health() {
    let a = "service: web\nhosts: [a.example]\ncheck: {http: /a}\n";
    assert_eq!(codes(&[a, "service: api\nhosts: [A.example]\npaths: [/]\n"]), ["E017"]);
    assert_eq!(codes(&[a, "service: web\nhosts: [b.example]\ncheck: {http: /b}\n"]), ["E018"]);
    assert_eq!(codes(&["service: web\n", "service: api\n"]), ["E017"]);
    let two = [Source::new("a", a), Source::new("b", "service: web\nhosts: [b.example]\n")];
    let (set, out) = parse_files(&two);
    assert!(out.0.is_empty(), "{}", out.render());
    assert_eq!(set.files[1].check, set.files[0].check, "what one file has holds for the other");
}

#[test]
fn shares_are_whole_and_of_one_kind() {
    let split = |arms: &str| {
        codes(&[&format!("service: w\npools: {{a: id exists, b: id exists}}\nrules: [{{name: r, split: {arms}}}]\n")])
    };
    assert_eq!(split("{a: 5%, b: 95%}"), Vec::<&str>::new());
    assert_eq!(split("{a: 33.3333%, b: 66.6667%}"), Vec::<&str>::new());
    assert_eq!(split("{a: 5%, b: 90%}"), ["E013"]);
    assert_eq!(split("{a: 0, b: 0}"), ["E013"]);
    assert_eq!(split("{a: 5%, b: 95}"), ["E014"]);
    assert_eq!(split("{a: 5.5, b: 1}"), ["E006"]);
    assert_eq!(split("{a: 5%, c: 95%}"), ["E012"]);
    assert_eq!(split("{a: 5%, a: 95%}"), ["E013", "E004"]);
}

#[test]
fn lints_warn_and_never_refuse() {
    let (set, out) = parse_files(&[Source::new(
        "t",
        "service: web\nlabels: {g: header.x-g}\nlocality: {prefer: [zone, region]}\npools:\n  a: id exists\n  b: id exists\n  c: id exists\n  d: {min: 2}\nrules:\n  - {name: m, when: method == get, to: a}\n  - {name: r, split: {a: 1, b: 1, c: 1}}\n  - {name: s, to: a}\n",
    )]);
    assert!(out.0.is_empty(), "{}", out.render());
    let found = lint::lint_rules(&set, None);
    let mut codes: Vec<_> = found.0.iter().map(|d| d.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, ["W001", "W002", "W003", "W005", "W006", "W007", "W009", "W010", "W014", "W017"]);
    assert!(found.0.iter().all(|d| d.severity != Severity::Error));
}

#[test]
fn codes_of_lints_are_unique_and_sorted() {
    assert!(lint::LINTS.windows(2).all(|pair| pair[0].code < pair[1].code));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_file_makes_the_parser_panic(text in "\\PC{0,60}(\\n *[a-z]{0,6}: \\PC{0,20}){0,4}") {
        let _ = parse_files(&[Source::new("t", text)]);
    }

    /// Cuts and swaps within a file that uses everything reach the deep corners.
    #[test]
    fn no_damaged_file_makes_the_parser_panic(at in 0usize..2_400, len in 0usize..60, with in "[ -~\\n]{0,6}") {
        let mut text = WHOLE_FILE.to_owned();
        let start = at.min(text.len());
        text.replace_range(start..(start + len).min(text.len()), &with);
        let (set, out) = parse_files(&[Source::new("t", text)]);
        prop_assert_eq!(set.files.is_empty(), out.has_errors());
        let _ = (out.render(), lint::lint_rules(&set, None));
    }
}

#[test]
fn the_name_that_a_check_expects_may_be_made_of_the_instances_labels() {
    let file = |check: &str| format!("service: web\ncheck: {{{check}}}\n");
    let named = |name: &str| set(&file(&format!("http: /h, expect: {{tls_name: \"{name}\"}}"))).files[0].check.clone();
    for name in ["{service}.internal", "{label.zone}.{service}.internal", "{label.node.meta.host}", "web.internal"] {
        assert_eq!(named(name).and_then(|check| check.tls_name).as_deref(), Some(name));
    }
    let wrong =
        ["{zone}.internal", "{label.}.x", "{service.internal", "service}.internal", "{service}..x", "{{service}}"];
    for name in wrong {
        let text = file(&format!("http: /h, expect: {{tls_name: \"{name}\"}}"));
        assert!(!codes(&[&text]).is_empty(), "{name}");
    }
}

#[test]
fn only_checks_that_keep_a_connection_may_be_told_whether_to() {
    assert!(!set("service: web\ncheck: {http: /h, reuse: false}\n").files[0].check.as_ref().unwrap().reuse);
    assert!(set("service: web\ncheck: {grpc: true}\n").files[0].check.as_ref().unwrap().reuse);
    assert_eq!(codes(&["service: web\ncheck: {tcp: true, reuse: false}\n"]), ["E006"]);
    assert_eq!(codes(&["service: web\ncheck: {http: /h, reuse: sometimes}\n"]).len(), 1);
}
