//! Deciding through the index is deciding by trying every rule in order.

use proptest::prelude::*;

use super::*;

/// Few fields and few values, so that rules do match.
fn test() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        4 => (0..12u8).prop_map(|n| format!("header.x-{n}")),
        2 => (0..3u8).prop_map(|n| format!("cookie.c{n}")),
        2 => (0..3u8).prop_map(|n| format!("query.q{n}")),
        1 => Just("method".to_owned()),
        2 => Just("path".to_owned()),
        1 => Just("host".to_owned()),
    ];
    let value =
        || prop_oneof![Just("a"), Just("b"), Just("ab"), Just("'/a'"), Just("'/a/b'"), Just("GET"), Just("1.2")];
    let op = prop_oneof![
        4 => value().prop_map(|v| format!("== {v}")),
        2 => value().prop_map(|v| format!("!= {v}")),
        3 => (value(), value()).prop_map(|(a, b)| format!("in [{a}, {b}]")),
        1 => (value(), value()).prop_map(|(a, b)| format!("not in [{a}, {b}]")),
        2 => prop_oneof![Just("a|b"), Just("/a.*"), Just("[ab]+"), Just(".*b"), Just("G..")]
            .prop_map(|v| format!("matches '{v}'")),
        1 => Just("not matches 'a.*'".to_owned()),
        1 => Just("exists".to_owned()),
        1 => value().prop_map(|v| format!("starts {v}")),
        1 => value().prop_map(|v| format!("ends {v}")),
        1 => value().prop_map(|v| format!("contains {v}")),
        1 => Just("< 1.10".to_owned()),
    ];
    prop_oneof![
        10 => (field, op).prop_map(|(field, op)| format!("{field} {op}")),
        3 => prop_oneof![Just("path under '/a'"), Just("path under '/a/b'"), Just("path under '/'")].prop_map(Into::into),
        1 => Just("client.ip in [10.0.0.0/8]".to_owned()),
        1 => Just("tls.client.san contains ab".to_owned()),
        1 => Just("tls.client.san exists".to_owned()),
        1 => (1..100u8).prop_map(|share| format!("percent(cookie.c0, header.x-0) < {share}")),
        1 => (1..100u8).prop_map(|share| format!("percent(query.q0) >= {share}")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    test().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" and "))),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" or "))),
            1 => inner.prop_map(|part| format!("(not {part})")),
        ]
    })
}

fn request() -> impl Strategy<Value = Request> {
    let value = || prop_oneof![Just("a"), Just("b"), Just("ab"), Just("/a"), Just("1.2"), Just("")];
    (
        prop_oneof![Just("GET"), Just("POST"), Just("ab")],
        prop_oneof![Just("a"), Just("b"), Just("ab")],
        prop_oneof![Just("/"), Just("/a"), Just("/a/"), Just("/a/b"), Just("/a/b/c"), Just("/ab"), Just("/b")],
        prop::collection::vec((0..12u8, value()), 0..10),
        prop::collection::vec((0..3u8, value()), 0..3),
        prop::collection::vec((0..3u8, value()), 0..3),
        prop::collection::vec(value(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(method, host, path, headers, cookies, query, san, near)| {
            let mut request = Request::get(&format!("{host}{path}"));
            request.method = method.parse().unwrap();
            for (name, value) in headers {
                request = request.header(&format!("x-{name}"), value);
            }
            for (name, value) in cookies {
                request = request.header("cookie", &format!("c{name}={value}; z=1"));
            }
            let pairs: Vec<String> = query.iter().map(|(name, value)| format!("q{name}={value}")).collect();
            request.query = (!pairs.is_empty()).then(|| pairs.join("&"));
            request.san = san.into_iter().map(Into::into).collect();
            request.client = IpAddr::from(if near { [10, 0, 0, 1] } else { [11, 0, 0, 1] });
            request
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_index_decides_as_trying_every_rule_in_order_does(
        conditions in prop::collection::vec(expression(), 1..24),
        requests in prop::collection::vec(request(), 1..24),
    ) {
        let mut file = web();
        file.rules = conditions.iter().enumerate().map(|(at, when)| rule(&format!("r{at}"), when, &["stable"])).collect();
        let table = fake(vec![file.clone()]);
        let mut scratch = Scratch::new();
        for request in &requests {
            let decision = decide(&table, &request.view(), Draw(1), &mut scratch, &mut NoTrace);
            let expected = naive::first_match(&file, request);
            prop_assert_eq!(decision.rule.map(|rule| rule as usize), expected, "{:?}\n{:#?}", request, conditions);
        }
    }
}
