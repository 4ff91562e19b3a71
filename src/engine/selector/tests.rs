use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::engine::diagnostic::{Diagnostics, Source};
use crate::engine::expr::ast::Test;
use crate::engine::expr::{Written, parse_instance};
use crate::engine::instance::{Instance, Status};
use crate::engine::testing;

const KEYS: [&str; 3] = ["version", "env", "lane"];
const VALUES: [&str; 7] = ["1.2", "1.10", "v1.2", "prod", "", "1.2-rc.1", "pre"];

fn parse(text: &str) -> Expr {
    let mut out = Diagnostics::default();
    let expr = parse_instance(&Written::whole(&Source::new("t", text)), None, &mut out);
    expr.unwrap_or_else(|| panic!("{}", out.render()))
}

/// The contract, one instance at a time, without an index.
fn holds(expr: &Expr, instance: &Instance) -> bool {
    match &expr.kind {
        ExprKind::Or(parts) => parts.iter().any(|part| holds(part, instance)),
        ExprKind::And(parts) => parts.iter().all(|part| holds(part, instance)),
        ExprKind::Not(part) => !holds(part, instance),
        ExprKind::Test(test) => passes(test, instance) != test.negated,
        ExprKind::Percent { .. } => unreachable!("not in a selector"),
    }
}

fn passes(test: &Test, instance: &Instance) -> bool {
    let one = |value: &str| match &test.op {
        Op::Equal(Operand::RequestLabel(_)) => true,
        Op::Matches(pattern) if pattern.ends_with("prod") => {
            value == "prod" || value.trim_start_matches('v').starts_with("1.") && !value.starts_with("vv")
        }
        Op::Matches(_) => matches!(value, "v1" | "1"),
        op => eval::test_text(op, value.as_bytes()),
    };
    let port = instance.addr.port().to_string();
    match &test.field {
        Field::Label(key) => instance.labels.value(key).is_some_and(one),
        Field::Builtin(Builtin::Tags) => eval::test_list(&test.op, instance.tags.iter().map(|tag| &**tag)),
        Field::Builtin(Builtin::Id) => one(&instance.id),
        Field::Builtin(Builtin::Node) => !instance.node.is_empty() && one(&instance.node),
        Field::Builtin(Builtin::Address) => one(&instance.host),
        Field::Builtin(Builtin::Port) => one(&port),
        Field::Builtin(Builtin::Dc) => !instance.dc.is_empty() && one(&instance.dc),
        Field::Builtin(Builtin::Status) => one(instance.status.word()),
        other => unreachable!("{other:?} is no field of an instance"),
    }
}

fn instances() -> impl Strategy<Value = Vec<Instance>> {
    let one = (
        prop::collection::vec((select(&KEYS), select(&VALUES)), 0..4),
        prop::collection::vec(select(&["blue", "green", "canary"]), 0..3),
        select(&["", "dc1", "dc2"]),
        select(&Status::ALL),
    );
    prop::collection::vec(one, 0..90).prop_map(|all| {
        let build = |(at, (labels, tags, dc, status)): (usize, (Vec<_>, Vec<&str>, &str, Status))| Instance {
            tags: tags.into_iter().map(Into::into).collect(),
            dc: dc.into(),
            node: if at % 3 == 0 { "".into() } else { format!("n{}", at % 2).into() },
            status,
            ..testing::instance("web", &format!("i{at:03}"), 8_000 + at as u16 % 2, &labels)
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

fn expressions() -> impl Strategy<Value = String> {
    let value = || select(&VALUES).prop_map(|value| format!("'{value}'"));
    let key = || select(&KEYS);
    let leaf = prop_oneof![
        (key(), select(&["==", "!=", "starts", "ends", "contains", "not contains"]), value())
            .prop_map(|(key, op, value)| format!("{key} {op} {value}")),
        (key(), select(&["<", "<=", ">", ">=", "~"]), select(&["1.2", "1.5", "v1.2.0-rc.1", "2"]))
            .prop_map(|(key, op, value)| format!("{key} {op} '{value}'")),
        (key(), any::<bool>(), value(), value())
            .prop_map(|(key, not, a, b)| format!("{key} {} [{a}, {b}]", if not { "not in" } else { "in" })),
        key().prop_map(|key| format!("{key} exists")),
        key().prop_map(|key| format!("{key} matches 'v?1\\\\..*|prod'")),
        key().prop_map(|key| format!("{key} not matches 'v?1'")),
        select(&["blue", "red"]).prop_map(|tag| format!("'{tag}' in tags")),
        select(&["tags exists", "'blue' not in tags", "tags contains canary", "dc == dc1", "dc != dc1", "dc exists"])
            .prop_map(str::to_owned),
        select(&[
            "status == passing",
            "status != critical",
            "node == n1",
            "node exists",
            "port == 8001",
            "id ends '7'"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a}) or ({b}) or ({c})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn the_index_answers_as_a_linear_scan_does(instances in instances(), text in expressions()) {
        let expr = parse(&text);
        let service = testing::service("web", instances.into_iter().map(Arc::new).collect());
        let selected: Vec<u32> = Selector::compile(&expr).unwrap().select(&service).iter().collect();
        let expected: Vec<u32> = (0..service.endpoints.len() as u32)
            .filter(|at| holds(&expr, &service.endpoints[*at as usize].instance))
            .collect();
        prop_assert_eq!(selected, expected, "{}", text);
    }
}

#[test]
fn a_negation_holds_where_the_label_is_missing() {
    let with = |labels: &[(&str, &str)], id: &str| Arc::new(testing::instance("web", id, 80, labels));
    let service =
        testing::service("web", vec![with(&[("env", "prod")], "a"), with(&[], "b"), with(&[("env", "")], "c")]);
    let who = |text: &str| Selector::compile(&parse(text)).unwrap().select(&service).iter().collect::<Vec<_>>();
    assert_eq!(who("env == prod"), [0]);
    assert_eq!(who("env != prod"), [1, 2]);
    assert_eq!(who("not env == prod"), who("env != prod"));
    assert_eq!(who("env exists"), [0, 2]);
    assert_eq!(who("env < 2"), [0; 0]);
    assert_eq!(who("not env < 2"), [0, 1, 2]);
}

#[test]
fn a_term_with_a_request_label_asks_for_presence() {
    let labels = [vec![("lane", "x")], vec![]];
    let all =
        labels.iter().enumerate().map(|(at, l)| Arc::new(testing::instance("web", &at.to_string(), 80, l))).collect();
    let service = testing::service("web", all);
    let selector = Selector::compile(&parse("lane == label.lane")).unwrap();
    assert_eq!(selector.select(&service).iter().collect::<Vec<_>>(), [0]);
}
