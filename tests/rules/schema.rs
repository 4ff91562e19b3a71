//! `check --schema`: what the parser takes, the schema takes; and files with structural faults it refuses.

use std::path::Path;

use pointsman::dry_run::load;
use pointsman::engine::diagnostic::{Diagnostics, Source};
use pointsman::engine::rules::schema::{self, SCHEMA};
use pointsman::engine::yaml::{self, Node, Value as Yaml};
use serde_json::{Map, Number, Value, json};

/// As an editor reads it: YAML 1.2's core schema.
pub fn json_of(node: &Node) -> Value {
    match &node.value {
        Yaml::Scalar { .. } if node.is_null() => Value::Null,
        Yaml::Scalar { text, plain: false } => text.as_str().into(),
        Yaml::Scalar { text, .. } => match text.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            _ => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(whole), _) => whole.into(),
                (_, Ok(number)) if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => {
                    Number::from_f64(number).map_or(Value::Null, Value::Number)
                }
                _ => text.as_str().into(),
            },
        },
        Yaml::List(items) => items.iter().map(json_of).collect(),
        Yaml::Map(pairs) => {
            let pair = |(key, value): &(Node, Node)| (key.text().unwrap_or("").to_owned(), json_of(value));
            Value::Object(pairs.iter().map(pair).collect::<Map<_, _>>())
        }
    }
}

/// The part of JSON Schema 2020-12 that ours uses; a keyword that is not known here is an error.
fn problems(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(rules) = schema.as_object() else { return found };
    for (word, rule) in rules {
        let mut fail = |why: String| found.push(format!("{at}: {why}"));
        let inner = |schema: &Value, value: &Value| problems(root, schema, value, at);
        match word.as_str() {
            "$schema" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                let target = root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
                found.extend(problems(root, target, value, at));
            }
            "type" => {
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap())) {
                    fail(format!("{value} is not {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => fail(format!("{value} is not one of {rule}")),
            "const" if rule != value => fail(format!("{value} is not {rule}")),
            "enum" | "const" => {}
            "pattern" => {
                if let Some(text) = value.as_str()
                    && !pattern(rule.as_str().unwrap()).is_match(text)
                {
                    fail(format!("{text} does not match {rule}"));
                }
            }
            "minLength" => {
                if value.as_str().is_some_and(|text| (text.len() as u64) < rule.as_u64().unwrap()) {
                    fail("too short".into());
                }
            }
            "minimum" if value.as_f64().is_some_and(|n| n < rule.as_f64().unwrap()) => fail(format!("below {rule}")),
            "maximum" if value.as_f64().is_some_and(|n| n > rule.as_f64().unwrap()) => fail(format!("above {rule}")),
            "minItems" if value.as_array().is_some_and(|a| (a.len() as u64) < rule.as_u64().unwrap()) => {
                fail("too few".into());
            }
            "minProperties" if value.as_object().is_some_and(|o| (o.len() as u64) < rule.as_u64().unwrap()) => {
                fail("too few keys".into());
            }
            "maxProperties" if value.as_object().is_some_and(|o| (o.len() as u64) > rule.as_u64().unwrap()) => {
                fail("too many keys".into());
            }
            "minimum" | "maximum" | "minItems" | "minProperties" | "maxProperties" => {}
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(problems(root, rule, item, &format!("{at}/{n}")));
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.as_object().is_some_and(|o| !o.contains_key(key.as_str().unwrap())) {
                        fail(format!("{key} is missing"));
                    }
                }
            }
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(key) {
                        found.extend(problems(root, rule, inner, &format!("{at}/{key}")));
                    }
                }
            }
            "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if rules.get("properties").is_none_or(|known| known.get(key).is_none()) {
                        match rule {
                            Value::Bool(false) => found.push(format!("{at}: unknown key {key}")),
                            rule => found.extend(problems(root, rule, inner, &format!("{at}/{key}"))),
                        }
                    }
                }
            }
            "propertyNames" => {
                for key in value.as_object().into_iter().flat_map(Map::keys) {
                    found.extend(problems(root, rule, &key.as_str().into(), at));
                }
            }
            "allOf" => rule.as_array().unwrap().iter().for_each(|rule| found.extend(inner(rule, value))),
            "anyOf" | "oneOf" => {
                let all: Vec<_> = rule.as_array().unwrap().iter().map(|rule| inner(rule, value)).collect();
                let held = all.iter().filter(|problems| problems.is_empty()).count();
                if held == 0 || (word == "oneOf" && held > 1) {
                    fail(format!("{held} of {word} hold: {all:?}"));
                }
            }
            "not" if inner(rule, value).is_empty() => fail("what must not be".into()),
            "not" => {}
            other => panic!("the schema uses `{other}`, which this test does not know"),
        }
    }
    found
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        other => panic!("no kind `{other}`"),
    }
}

/// What the schema says of a rule file; `None`: it is not even YAML.
pub fn refused(text: &str) -> Option<Vec<String>> {
    refused_by(SCHEMA, text)
}

/// The same of a file of tests.
pub fn tests_refused(text: &str) -> Option<Vec<String>> {
    refused_by(&schema::of_tests(), text)
}

fn refused_by(schema: &str, text: &str) -> Option<Vec<String>> {
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    let node = yaml::parse(&Source::new("t", text), &mut Diagnostics::default())?;
    Some(problems(&schema, &schema, &json_of(&node), ""))
}

#[test]
fn the_schema_takes_every_shipped_file() {
    let (sources, _) = load::sources(&["rules".into()]);
    assert!(sources.len() >= 6);
    for source in sources {
        assert_eq!(refused(&source.text), Some(Vec::new()), "{}", source.name);
    }
}

#[test]
fn the_schema_refuses_structural_faults() {
    for name in ["unknown-keys", "wrong-kinds", "missing-keys", "rules", "units", "not-a-map", "values"] {
        let text = std::fs::read_to_string(Path::new("rules/invalid").join(format!("{name}.yaml"))).unwrap();
        assert_ne!(refused(&text), Some(Vec::new()), "{name}");
    }
    for (text, word) in [
        ("service: web\nrulez: []\n", "rulez"),
        ("hosts: a.example.com\n", "service"),
        ("service: web\nrules: [{name: a}]\n", "oneOf"),
        ("service: web\nrules: [{name: a, to: x, respond: 404}]\n", "oneOf"),
        ("service: web\nelse: 200\n", "else"),
        ("service: web\ntimeout: {connect: 5}\n", "connect"),
        ("service: web\npools: {any: x == y}\n", "what must not be"),
    ] {
        let found = refused(text).expect("YAML").join("\n");
        assert!(found.contains(word), "{text}: {found}");
    }
}

#[test]
fn files_of_tests_have_a_schema_of_their_own() {
    let shipped = std::fs::read_to_string("tests/dry_run/files/cases.yaml").unwrap();
    assert_eq!(tests_refused(&shipped), Some(Vec::new()));
    let case = "{request: GET /, headers: {x-a: b}, down: a, expect: {rule: r, share: {a: 5%}}}";
    for rules in ["web.yaml", "[web.yaml, more/]"] {
        assert_eq!(tests_refused(&format!("rules: {rules}\ntests: [{case}]\n")), Some(Vec::new()));
    }
    for (text, word) in [
        ("tests: []\n", "is missing"),
        ("rules: []\ntests: []\n", "oneOf"),
        ("rules: web.yaml\ntests: []\nservice: web\n", "service"),
        ("rules: web.yaml\ntests: [{request: GET, expect: {}}]\n", "does not match"),
        ("rules: web.yaml\ntests: [{request: GET /, expect: {pol: a}}]\n", "pol"),
    ] {
        let found = tests_refused(text).expect("YAML").join("\n");
        assert!(found.contains(word), "{text}: {found}");
    }
    let schema: Value = serde_json::from_str(&schema::of_tests()).unwrap();
    assert!(schema["$defs"].get("eject").is_none(), "only what it refers to: {}", schema["$defs"]);
}

#[test]
fn what_editors_see_is_what_yaml_says() {
    let node = yaml::parse(&Source::new("t", "a: 1.3\nb: '1.3'\nc: [1, true, x, ~]\n"), &mut Diagnostics::default());
    assert_eq!(json_of(&node.unwrap()), json!({"a": 1.3, "b": "1.3", "c": [1, true, "x", null]}));
}

fn pattern(text: &str) -> regex::Regex {
    regex::RegexBuilder::new(text).size_limit(1 << 20).build().unwrap()
}
