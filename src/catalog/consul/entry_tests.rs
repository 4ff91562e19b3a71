//! Behaviour of reading entries: L6, M1–M5, P8.

use serde_json::{Value, json};

use super::*;

fn element(change: impl FnOnce(&mut Value)) -> Value {
    let mut element = json!({
        "Node": {"ID": "eab5", "Node": "n1", "Address": "10.9.9.9", "Datacenter": "dc1",
                 "TaggedAddresses": {"lan": "10.9.9.9", "wan": "192.0.2.9"}, "Meta": {"consul-network-segment": "", "rack": "r7"}},
        "Service": {"ID": "u1", "Service": "user-svc", "Tags": ["v1", "env=prod"], "Address": "10.0.0.1",
                    "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 9001}, "wan": {"Address": "203.0.113.5", "Port": 80}},
                    "Meta": {"env": "prod", "version": "v1.2"}, "Port": 9001, "Weights": {"Passing": 10, "Warning": 1},
                    "Proxy": {"MeshGateway": {}}, "Connect": {}, "CreateIndex": 14, "ModifyIndex": 14},
        "Checks": [{"Node": "n1", "CheckID": "serfHealth", "Status": "passing"}]
    });
    change(&mut element);
    element
}

fn one(settings: &Settings, change: impl FnOnce(&mut Value)) -> Entries {
    let healthy = element(|e| e["Service"]["ID"] = "healthy".into());
    let body = json!([healthy, element(change)]).to_string();
    let mut entries = read(body.as_bytes(), settings, Origin::default()).unwrap();
    entries.drafts.remove(0);
    entries
}

#[test]
fn an_entry_becomes_an_instance() {
    let entries = one(&Settings::default(), |_| ());
    let draft = &entries.drafts[0];
    assert_eq!((draft.host.as_str(), draft.port), ("10.0.0.1", 9001));
    assert_eq!(&*draft.instance.identity, "consul/dc1////n1/u1");
    assert_eq!(draft.instance.weights, Weights { passing: 10, warning: 1 });
    assert_eq!(draft.instance.labels.value("version"), Some("v1.2"));
    assert_eq!(draft.instance.labels.value("node.meta.rack"), Some("r7"));
    assert_eq!((&*draft.instance.node, &*draft.instance.dc, draft.instance.tags.len()), ("n1", "dc1", 2));
}

#[test]
fn nulls_and_missing_fields_are_what_consul_means_by_them() {
    let entries = one(&Settings::default(), |e| {
        e["Service"]["Meta"] = Value::Null;
        e["Service"]["Tags"] = Value::Null;
        e["Service"]["Address"] = "".into();
        e["Service"].as_object_mut().unwrap().remove("Weights");
        e["Node"]["Meta"] = Value::Null;
        e["Node"]["TaggedAddresses"] = Value::Null;
        e["Checks"] = Value::Null;
    });
    let draft = &entries.drafts[0];
    assert_eq!((draft.host.as_str(), draft.instance.status), ("10.9.9.9", Status::Passing));
    assert!(draft.instance.labels.is_empty());
    assert_eq!(draft.instance.weights, Weights::default());
}

#[test]
fn the_address_can_be_a_tagged_one() {
    let check = |from: &str, change: fn(&mut Value), expected: (&str, u16)| {
        let settings = Settings { address_from: from.to_owned(), ..Settings::default() };
        let entries = one(&settings, change);
        assert_eq!((entries.drafts[0].host.as_str(), entries.drafts[0].port), expected);
    };
    check("wan", |_| (), ("203.0.113.5", 80));
    check("wan", |e| e["Service"]["TaggedAddresses"] = Value::Null, ("192.0.2.9", 9001));
    check("wan_ipv6", |_| (), ("10.0.0.1", 9001));
}

#[test]
fn addresses_and_ports_that_nobody_can_connect_to_are_refused_one_by_one() {
    for (address, port) in [
        ("10.0.0.1", 0),
        ("10.0.0.1", -1),
        ("10.0.0.1", 70_000),
        ("0.0.0.0", 80),
        ("::", 80),
        ("10.0.0.1:80", 80),
        ("a b", 80),
        ("-", 0),
    ] {
        let entries = one(&Settings::default(), |e| {
            e["Service"]["Address"] = address.into();
            e["Service"]["Port"] = port.into();
        });
        assert!(entries.drafts.is_empty(), "{address}:{port}");
        assert_eq!(entries.kept, [Text::from("consul/dc1////n1/u1")]);
    }
    for (address, host) in
        [("[::1]", "::1"), ("fe80::1", "fe80::1"), ("host.local", "host.local"), ("a_b.example.", "a_b.example.")]
    {
        let entries = one(&Settings::default(), |e| e["Service"]["Address"] = address.into());
        assert_eq!(entries.drafts[0].host, host);
    }
}

#[test]
fn the_state_is_the_worst_of_all_checks() {
    let check = |checks: Value, expected: Status, oddities: usize| {
        let entries = one(&Settings::default(), |e| e["Checks"] = checks.clone());
        assert_eq!((entries.drafts[0].instance.status, entries.oddities), (expected, oddities), "{checks}");
    };
    check(json!([]), Status::Passing, 0);
    check(json!([{"CheckID": "a", "Status": "warning"}, {"CheckID": "b", "Status": "passing"}]), Status::Warning, 0);
    check(
        json!([{"CheckID": "serfHealth", "Status": "critical"}, {"CheckID": "b", "Status": "warning"}]),
        Status::Critical,
        0,
    );
    check(json!([{"CheckID": "_service_maintenance:u1", "Status": "critical"}]), Status::Maintenance, 0);
    check(
        json!([{"CheckID": "_node_maintenance", "Status": "critical"}, {"CheckID": "b", "Status": "critical"}]),
        Status::Maintenance,
        0,
    );
    check(json!([{"CheckID": "a", "Status": "sleepy"}]), Status::Critical, 1);
}

#[test]
fn meta_can_override_the_weight_and_nonsense_is_counted() {
    let check = |weight: &str, expected: u32, oddities: usize| {
        let entries = one(&Settings::default(), |e| e["Service"]["Meta"] = json!({"weight": weight}));
        assert_eq!((entries.drafts[0].instance.weights.passing, entries.oddities), (expected, oddities), "{weight}");
    };
    check("300", 300, 0);
    check("0", 10, 1);
    check("65536", 10, 1);
    check("heavy", 10, 1);
    let strict = Settings { ok_states: vec![Status::Passing], ..Settings::default() };
    assert_eq!(one(&strict, |_| ()).drafts[0].instance.weights, Weights { passing: 10, warning: 0 });
}

#[test]
fn proxies_and_our_own_front_are_left_out() {
    let sidecar = |e: &mut Value| e["Service"]["Kind"] = "connect-proxy".into();
    let left = one(&Settings::default(), sidecar);
    assert!(left.drafts.is_empty() && left.kept.is_empty());
    assert_eq!(one(&Settings { proxies: true, ..Settings::default() }, sidecar).drafts.len(), 1);
    let front = |e: &mut Value| e["Service"]["Meta"] = json!({"pointsman-id": "p1", "pointsman-front": "true"});
    assert!(one(&Settings::default(), front).drafts.is_empty());
}

#[test]
fn a_bad_element_costs_itself_and_too_many_cost_the_answer() {
    let settings = Settings::default();
    let garbage = [json!(7), json!({"Node": {"Node": "n1"}, "Service": {"ID": "u9", "Service": "x", "Port": "80"}})];
    let good = element(|_| ());
    let read = |elements: Value| read(elements.to_string().as_bytes(), &settings, Origin::default());
    let entries = read(json!([good, garbage[1], element(|e| e["Service"]["ID"] = "u2".into())])).unwrap();
    assert_eq!((entries.drafts.len(), entries.kept.len(), entries.flawed), (2, 1, false));
    let entries = read(json!([good, garbage[0]])).unwrap();
    assert!(entries.flawed && entries.drafts.len() == 1);
    assert!(read(json!([good, garbage[0], garbage[1]])).unwrap_err().contains("2 of 3"));
}

#[test]
fn what_is_no_list_is_refused_and_null_is_an_empty_list_in_doubt() {
    let read = |body: &str| read(body.as_bytes(), &Settings::default(), Origin::default());
    for body in ["", "{}", "[", "[] trailing", "\"[]\"", "[]]", "<html>"] {
        assert!(read(body).is_err(), "{body}");
    }
    assert!(read("null").unwrap().flawed);
    assert!(!read("[]").unwrap().flawed);
}

#[test]
fn identities_do_not_collide_when_names_hold_slashes() {
    let (a, b) = (identity("dc1", Origin::default(), "n/1", "x"), identity("dc1", Origin::default(), "n", "1/x"));
    assert_ne!(a, b);
}
