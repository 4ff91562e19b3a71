//! Files, rules, labels and who may send what.

use super::*;
use crate::engine::rules::{Action, LabelSource, RequestLabel};

#[test]
fn the_first_rule_that_matches_is_final() {
    let mut file = web();
    file.rules = vec![
        rule("testers", "header.x-user-group == test", &["gray"]),
        rule("all", "", &["stable"]),
        rule("never", "", &["other"]),
    ];
    let table = fake(vec![file]).count("gray", 1, 0, 1);
    assert_eq!(table.outcome(&Request::get("h/"), 1), "all/stable");
    let tester = Request::get("h/").header("X-User-Group", "test");
    assert_eq!(table.outcome(&tester, 1), "testers/503 no_routable_instance");
}

#[test]
fn without_a_file_or_a_rule_the_answer_says_which() {
    let mut file = web();
    file.hosts = vec![host("shop.example.com")];
    file.rules = vec![rule("post", "method == POST", &["stable"])];
    let table = fake(vec![file.clone()]);
    assert_eq!(table.outcome(&Request::get("other/"), 1), "404 no_route");
    assert_eq!(table.outcome(&Request::get("shop.example.com/"), 1), "-/404 no_rule");
    file.fallback = or_else(Else::Status(410));
    assert_eq!(fake(vec![file.clone()]).outcome(&Request::get("shop.example.com/"), 1), "-/410 no_rule");
    file.fallback = or_else(Else::Any);
    let table = fake(vec![file]);
    assert_eq!(table.outcome(&Request::get("shop.example.com/"), 1), "-/any");
    let table = table.count("any", 3, 0, 1);
    assert_eq!(table.outcome(&Request::get("shop.example.com/"), 1), "-/503 no_routable_instance");
}

#[test]
fn what_an_exact_host_does_not_claim_falls_to_a_wider_file() {
    let mut exact = web();
    exact.hosts = vec![host("a.example.com")];
    exact.paths = vec![spanned("/cart".into())];
    exact.rules = vec![rule("exact", "", &["stable"])];
    let mut wide = web();
    wide.hosts = vec![host("*.example.com")];
    wide.rules = vec![rule("wide", "", &["stable"])];
    let table = fake(vec![exact, wide]);
    assert_eq!(table.outcome(&Request::get("a.example.com/cart/1"), 1), "exact/stable");
    assert_eq!(table.outcome(&Request::get("a.example.com/cartoon"), 1), "wide/stable");
    assert_eq!(table.outcome(&Request::get("example.com/"), 1), "404 no_route");
}

#[test]
fn a_pair_claimed_twice_is_an_error_naming_both() {
    let second = RuleFile { source: Source::new("second.yaml", ""), ..web() };
    let set = RuleSet { files: vec![Arc::new(web()), Arc::new(second)] };
    let out = Router::compile(&set).expect_err("two claims");
    let codes: Vec<&str> = out.0.iter().map(|error| error.code).collect();
    assert_eq!(codes, ["E017"]);
    let shown = out.render();
    assert!(shown.contains("web.yaml") && shown.contains("second.yaml"), "{shown}");
}

#[test]
fn a_list_that_was_not_read_is_refused_by_name() {
    let mut file = web();
    file.rules = vec![rule("listed", "cookie.uid in file('users.txt')", &["stable"])];
    let out = Router::compile(&RuleSet { files: vec![Arc::new(file)] }).expect_err("the list is missing");
    let shown = out.render();
    assert!(shown.contains("`users.txt` was not read"), "{shown}");
}

#[test]
fn redirects_and_answers_need_no_pool() {
    let mut file = web();
    file.rules = vec![
        Rule {
            action: Action::Redirect { status: 301, location: "/new".into() },
            ..rule("old", "path == '/old'", &[])
        },
        Rule {
            action: Action::Respond { status: 200, body: "hi".into(), content_type: "text/plain".into() },
            ..rule("hi", "", &[])
        },
    ];
    let table = fake(vec![file]);
    assert_eq!(table.decide(&Request::get("h/old"), 1).outcome, Outcome::Redirect);
    assert_eq!(table.decide(&Request::get("h/"), 1).outcome, Outcome::Respond);
}

fn lanes() -> RuleFile {
    let mut file = web();
    file.labels = vec![RequestLabel {
        name: spanned("lane".into()),
        sources: vec![
            LabelSource::Field(field("header.x-lane")),
            LabelSource::Field(field("cookie.lane")),
            LabelSource::Fixed("base".into()),
        ],
    }];
    file.pools.push(pool("lane", "lane == label.lane"));
    file.rules = vec![
        rule("blocked", "label.lane == blocked", &["other"]),
        rule("header", "header.x-lane == direct", &["other"]),
        rule("lanes", "", &["lane", "stable"]),
    ];
    file
}

#[test]
fn a_pool_of_the_callers_lane_is_looked_up_by_its_label() {
    let mut table = fake(vec![lanes()]);
    table.variants = vec![("lane", vec!["f1"]), ("lane", vec!["base"])];
    let choice = |request: &Request| match table.decide(request, 1).outcome {
        Outcome::Pool(choice) => (choice.slot, table.router.files[0].pool_name(choice.pool).to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(choice(&Request::get("h/").header("x-lane", "f1")), (1_000, "lane".into()));
    assert_eq!(choice(&Request::get("h/").header("x-lane", "").header("cookie", "lane=f1")), (1_000, "lane".into()));
    assert_eq!(choice(&Request::get("h/")), (1_001, "lane".into()), "the fixed value");
    assert_eq!(choice(&Request::get("h/").header("x-lane", "f2")).1, "stable", "a lane that nobody has");
    assert_eq!(choice(&Request::get("h/").header("x-lane", "blocked")).1, "other");
}

#[test]
fn control_headers_count_only_from_trusted_peers() {
    let mut file = lanes();
    file.trusted = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    let mut table = fake(vec![file]);
    table.variants = vec![("lane", vec!["f1"]), ("lane", vec!["base"])];
    let slot = |request: &Request| match table.decide(request, 1).outcome {
        Outcome::Pool(choice) => choice.slot,
        other => panic!("{other:?}"),
    };
    let mut request = Request::get("h/").header("x-lane", "f1");
    assert_eq!(slot(&request), 1_000);
    request.trusted = false;
    assert_eq!(slot(&request), 1_001);
    let mut direct = Request::get("h/").header("x-lane", "direct");
    direct.trusted = false;
    assert_eq!(slot(&direct), 1_001, "rules do not see them either");
    let file = &table.router.files[0];
    assert_eq!(file.control_headers, ["x-lane"]);
    assert_eq!(file.control_cookies, [text("lane")]);
    for (peer, trusted) in [("10.1.1.1", true), ("::ffff:10.1.1.1", true), ("11.1.1.1", false), ("::1", false)] {
        assert_eq!(table.router.trusts("h", "/", peer.parse().unwrap()), trusted, "{peer}");
    }
    assert!(fake(vec![web()]).router.trusts("h", "/", "11.1.1.1".parse().unwrap()));
}
