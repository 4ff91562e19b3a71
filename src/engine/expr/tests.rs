use proptest::prelude::*;

use super::ast::{Builtin, ExprKind, Op, Operand};
use super::*;

fn parse(side: &str, text: &str, labels: Option<&[Text]>) -> Result<Expr, Diagnostics> {
    let source = Source::new("t", text);
    let mut out = Diagnostics::default();
    let written = Written::whole(&source);
    let expr = match side {
        "pool" => parse_instance(&written, labels, &mut out),
        _ => parse_request(&written, labels, &mut out),
    };
    match expr {
        Some(expr) => {
            assert!(out.0.is_empty(), "{text}: an expression and problems: {}", out.render());
            Ok(expr)
        }
        None => {
            assert!(out.has_errors(), "{text}: no expression and no error");
            Err(out)
        }
    }
}

/// The tree in a form that shows what binds to what.
fn shape(expr: &Expr) -> String {
    let join = |parts: &[Expr], word: &str| {
        format!("({})", parts.iter().map(shape).collect::<Vec<_>>().join(&format!(" {word} ")))
    };
    match &expr.kind {
        ExprKind::Or(parts) => join(parts, "or"),
        ExprKind::And(parts) => join(parts, "and"),
        ExprKind::Not(inner) => format!("not {}", shape(inner)),
        _ => expr.text.to_string(),
    }
}

#[test]
fn or_binds_loosest_then_and_then_not() {
    for (text, tree) in [
        ("a == 1 or b == 2 and c == 3", "(a == 1 or (b == 2 and c == 3))"),
        ("not a == 1 and b == 2", "(not a == 1 and b == 2)"),
        ("not not a exists", "not not a exists"),
        ("(a == 1 or b == 2) and c == 3", "((a == 1 or b == 2) and c == 3)"),
        ("(a == 1 and b == 2) and c == 3", "(a == 1 and b == 2 and c == 3)"),
        ("a not in [x, y] and b not matches 'z'", "(a not in [x, y] and b not matches 'z')"),
        ("'x' in tags or y not in tags", "('x' in tags or y not in tags)"),
        ("((a == 1))", "((a == 1))"),
    ] {
        assert_eq!(shape(&parse("pool", text, None).unwrap()), tree, "{text}");
    }
}

#[test]
fn every_form_of_the_grammar_is_read() {
    for text in [
        "version == 1.2 and env == prod",
        "labels['status'] == x",
        "status in [passing, warning] and port == 8080 and dc == dc1",
        "node starts eu- or address ends '.internal' or id contains 7",
        "app.kubernetes.io == x",
        "version >= v1.2-rc.1+build and version ~ '>=1.2, <2'",
        "tags contains canary and tags not contains 'old one' and tags exists",
        "lane == label.lane and group == label.group",
        "zone in file('zones.txt')",
        "file == percent",
    ] {
        parse("pool", text, None).unwrap_or_else(|out| panic!("{text}: {}", out.render()));
    }
    for text in [
        "header.x-user-group == \"test\"",
        "header['X-Odd'] exists or method == GET",
        "query.a == b and query['a b'] exists and cookie['a.b'] != c",
        "client.ip in [10.0.0.0/8, '::1', 192.168.1.1] or client.ip != 127.0.0.1",
        "client.ip not in file('blocked.txt')",
        "scheme == https and host ends '.example.com' and path under '/api'",
        "tls.sni exists and 'spiffe://a/b' in tls.client.san",
        "percent(cookie.uid, header.x-id) < 0.5 or percent(label.group) >= 99.9999",
        "path matches '/v[0-9]+/.*'",
    ] {
        parse("rule", text, None).unwrap_or_else(|out| panic!("{text}: {}", out.render()));
    }
}

#[test]
fn builtins_shadow_labels_and_brackets_reach_them() {
    let field = |text: &str| match parse("pool", text, None).unwrap().kind {
        ExprKind::Test(test) => test.field,
        _ => panic!("{text} is one test"),
    };
    assert_eq!(field("status == passing"), Field::Builtin(Builtin::Status));
    assert_eq!(field("labels[\"status\"] == passing"), Field::Label("status".into()));
    assert_eq!(field("labels[\"status\"] == passing").to_string(), "labels[\"status\"]");
    let lane = parse("pool", "lane == label.lane", None).unwrap();
    assert_eq!(lane.references(), [(&Field::Label("lane".into()), "lane")]);
    let quoted = parse("pool", "lane == 'label.lane'", None).unwrap();
    let ExprKind::Test(test) = quoted.kind else { panic!("one test") };
    assert!(matches!(test.op, Op::Equal(Operand::Text(text)) if &*text == "label.lane"));
}

#[test]
fn what_is_wrong_is_named_and_pointed_at() {
    let labels: &[Text] = &["lane".into(), "group".into()];
    let deep = format!("{}a exists{}", "(".repeat(70), ")".repeat(70));
    for (side, text, code, at, about) in [
        ("pool", "", "E020", "", "missing"),
        ("pool", "a =", "E020", "=", "`==`"),
        ("pool", "a == ", "E020", "", "the end"),
        ("pool", "a == in", "E020", "in", "quotes"),
        ("pool", "a == 1 AND b == 2", "E020", "AND", "lower case"),
        ("pool", "a startswith b", "E020", "startswith", "operator"),
        ("pool", "a not exists", "E020", "exists", "in front"),
        ("pool", "(a == 1", "E020", "", "`)`"),
        ("pool", "a matches b", "E020", "b", "quotes"),
        ("pool", "a ~ 1.2", "E020", "1.2", "quotes"),
        ("pool", "a in []", "E020", "]", "value"),
        ("pool", "1a == x", "E020", "1a", "labels["),
        ("pool", "header.x == 1", "E026", "header.x", "when"),
        ("pool", "percent(a) < 5", "E026", "percent(a)", "when"),
        ("pool", "label.lane == lane", "E025", "label.lane", "right"),
        ("pool", "lane != label.lane", "E025", "lane != label.lane", "top-level"),
        ("pool", "a == 1 or lane == label.lane", "E025", "lane == label.lane", "top-level"),
        ("pool", "lane in [label.lane]", "E025", "label.lane", "right of"),
        ("pool", "a == label.lane and b == label.lane and c == label.group", "E025", "c == label.group", "two"),
        ("pool", "lane == label.lame", "E019", "lane == label.lame", "`lane`"),
        ("pool", "tags == canary", "E022", "==", "contains"),
        ("pool", "version > new", "E023", "new", "version"),
        ("pool", "version ~ 'new'", "E023", "'new'", "requirement"),
        ("pool", "a matches '('", "E024", "'('", "unclosed"),
        ("pool", "a matches 'a)|(b'", "E024", "'a)|(b'", ""),
        ("pool", "a matches '(a{1000}){1000}'", "E024", "'(a{1000}){1000}'", "1024 KiB"),
        ("pool", &deep, "E029", "(", "deep"),
        ("rule", "header.a == label.lane", "E025", "label.lane", "pools"),
        ("rule", "label.lame == x", "E019", "label.lame", "`lane`"),
        ("rule", "headers.x-a == 1", "E021", "headers.x-a", "`header.x-a`"),
        ("rule", "version == 1", "E021", "version", "known"),
        ("rule", "header == 1", "E021", "header", "`header.NAME`"),
        ("rule", "header['a b'] exists", "E030", "header['a b']", "header"),
        ("rule", "path under cart", "E016", "cart", "begins"),
        ("rule", "client.ip matches '.*'", "E022", "matches", "`in`"),
        ("rule", "client.ip in [10.0.0.0/33]", "E027", "10.0.0.0/33", "CIDR"),
        ("rule", "client.ip == 10.0.0.0/8", "E027", "10.0.0.0/8", "in ["),
        ("rule", "percent(cookie.u) < 101", "E028", "101", "100"),
        ("rule", "percent(tls.client.san) < 1", "E022", "tls.client.san", "share"),
        ("rule", "percent(cookie.u) > 1", "E020", ">", "`>=`"),
    ] {
        let out = parse(side, text, Some(labels)).map(|expr| expr.text).unwrap_err();
        let found = &out.0[0];
        assert_eq!(out.0.len(), 1, "{text}: {}", out.render());
        assert_eq!(found.code, code, "{text}: {}", out.render());
        assert_eq!(&text[found.span.start..found.span.end], at, "{text}");
        assert!(out.render().contains(about), "{text}: {}", out.render());
    }
}

#[test]
fn one_run_finds_every_unknown_name() {
    let out = parse("rule", "hots == a and pth == b or tags contains c", None).map(|e| e.text).unwrap_err();
    assert_eq!(out.0.iter().map(|d| d.code).collect::<Vec<_>>(), ["E021", "E021", "E021"]);
}

#[test]
fn a_pattern_is_anchored_at_both_ends() {
    let whole = regex::RegexBuilder::new(&pattern("a|b").unwrap()).build().unwrap();
    assert!(whole.is_match("b") && !whole.is_match("ab") && !whole.is_match("b\n"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        let _ = parse("pool", &text, None);
        let _ = parse("rule", &text, None);
    }

    #[test]
    fn no_row_of_tokens_makes_the_parser_panic(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "a", "not", "in", "and", "or", "(", ")", "[", "]", ",", "==", "!=", "<", "~", "'x'", "label.a", "tags",
            "percent", "file", "exists", "matches", "1.2", "header.x", "client.ip", "under", "labels", "10.0.0.0/8",
        ]), 0..24)
    ) {
        let text = tokens.join(" ");
        let _ = parse("pool", &text, None);
        if let Ok(expr) = parse("rule", &text, None) {
            prop_assert_eq!(&*expr.text, text.trim());
        }
    }
}
