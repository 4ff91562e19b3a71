//! The shapes of rule files and of files of tests for editors, as JSON Schema 2020-12.
//!
//! They know keys, kinds and units. What needs the whole file (names that must exist, sums, expressions) is the
//! parser's alone; so a file that the schema takes may still be wrong, and never the other way round.

use serde_json::{Map, Value, json};

/// The schema of a rule file, with a line feed at its end.
pub const SCHEMA: &str = include_str!("schema.json");

/// The schema of a file of tests (`rules:` and `tests:`), with a line feed at its end: what stands beside the rules too
/// is taken from [`SCHEMA`].
#[must_use]
pub fn of_tests() -> String {
    let rules: Value = serde_json::from_str(SCHEMA).expect("a test reads the schema");
    let path = json!({"type": "string", "minLength": 1});
    let mut schema = json!({
        "$schema": rules["$schema"],
        "title": "pointsman file of tests",
        "description": "Tests apart from their rules: docs/RULES.md says what each key means.",
        "type": "object",
        "properties": {
            "rules": {
                "oneOf": [path, {"type": "array", "items": path, "minItems": 1}],
                "description": "Rule files and folders of them, from where this file is",
            },
            "tests": rules["properties"]["tests"],
        },
        "additionalProperties": false,
        "required": ["rules", "tests"],
    });
    let mut wanted = Map::new();
    referred(&schema, &rules["$defs"], &mut wanted);
    schema["$defs"] = wanted.into();
    format!("{schema:#}\n")
}

/// Takes over the definitions that a schema refers to, and those that they do.
fn referred(schema: &Value, defs: &Value, wanted: &mut Map<String, Value>) {
    match schema {
        Value::Object(pairs) => {
            if let Some(name) = pairs.get("$ref").and_then(|to| to.as_str()?.strip_prefix("#/$defs/"))
                && !wanted.contains_key(name)
            {
                wanted.insert(name.to_owned(), defs[name].clone());
                referred(&defs[name], defs, wanted);
            }
            pairs.values().for_each(|value| referred(value, defs, wanted));
        }
        Value::Array(items) => items.iter().for_each(|item| referred(item, defs, wanted)),
        _ => {}
    }
}
