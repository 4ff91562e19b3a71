//! Diagnostics for programs: JSON of our own, and SARIF 2.1.0 (OASIS) for code-scanning services.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Diagnostic, Diagnostics, Severity, Source, Span};

impl Diagnostics {
    /// A JSON array, one object a finding: `code`, `severity`, `message`, `place`, and where there is one `label`,
    /// `help`, `certainty`, `witness` and `related`. Lines and columns count from 1, columns in characters; ends are exclusive.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0.iter().map(object).collect()
    }

    /// A SARIF log with one run. `about` gives a sentence for a code, where there is one.
    #[must_use]
    pub fn to_sarif(&self, about: impl Fn(&str) -> Option<&'static str>) -> Value {
        let mut codes: BTreeMap<&str, Severity> = BTreeMap::new();
        for found in &self.0 {
            codes.insert(found.code, found.severity);
        }
        let rules: Vec<Value> = codes
            .iter()
            .map(|(code, severity)| {
                let mut rule = json!({"id": code, "defaultConfiguration": {"level": severity.word()}});
                if let Some(about) = about(code) {
                    rule["shortDescription"] = json!({"text": about});
                }
                rule
            })
            .collect();
        let results: Vec<Value> = self.0.iter().map(result).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "pointsman",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": rules,
                }},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }],
        })
    }
}

fn object(found: &Diagnostic) -> Value {
    let mut object = json!({
        "code": found.code,
        "severity": found.severity.word(),
        "message": found.message,
        "place": place(&found.source, found.span),
    });
    if let Some(label) = &found.label {
        object["label"] = json!(label);
    }
    if let Some(help) = &found.help {
        object["help"] = json!(help);
    }
    if let Some(certainty) = found.certainty {
        object["certainty"] = json!(certainty);
    }
    if let Some(witness) = &found.witness {
        object["witness"] = json!(witness);
    }
    if !found.related.is_empty() {
        object["related"] = found
            .related
            .iter()
            .map(|(source, span, word)| json!({"message": word, "place": place(source, *span)}))
            .collect();
    }
    object
}

fn place(source: &Source, span: Span) -> Value {
    let ((line, column), (end_line, end_column)) = (source.position(span.start), source.position(span.end));
    json!({"file": source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column})
}

fn result(found: &Diagnostic) -> Value {
    let more = [&found.label, &found.help].into_iter().flatten();
    let text = more.fold(found.message.clone(), |text, more| format!("{text}: {more}"));
    let mut result = json!({
        "ruleId": found.code,
        "level": found.severity.word(),
        "message": {"text": text},
        "locations": [location(&found.source, found.span, None)],
    });
    if let Some(certainty) = found.certainty {
        result["properties"] = json!({"certainty": certainty});
    }
    if let Some(witness) = &found.witness {
        result["properties"]["witness"] = json!(witness);
    }
    if !found.related.is_empty() {
        result["relatedLocations"] =
            found.related.iter().map(|(source, span, word)| location(source, *span, Some(word))).collect();
    }
    result
}

fn location(source: &Source, span: Span, word: Option<&str>) -> Value {
    let ((line, column), (end_line, end_column)) = (source.position(span.start), source.position(span.end));
    let mut location = json!({"physicalLocation": {
        "artifactLocation": {"uri": uri(&source.name)},
        "region": {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column},
    }});
    if let Some(word) = word {
        location["message"] = json!({"text": word});
    }
    location
}

/// A path as a relative reference of RFC 3986.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_sarif_say_where_in_lines_and_characters() {
        let source = Source::new("rules/a b.yaml", "é: 1\nto: grey\n");
        let mut all = Diagnostics::default();
        all.push(
            Diagnostic::error("E012", &source, Span::new(10, 14), "no pool is named `grey`")
                .label("did you mean `gray`?")
                .related(&source, Span::new(0, 2), "first"),
        );
        let json = all.to_json();
        assert_eq!(
            json[0]["place"],
            json!({"file": "rules/a b.yaml", "line": 2, "column": 5, "end_line": 2, "end_column": 9})
        );
        assert_eq!(json[0]["related"][0]["place"]["column"], 1);
        let sarif = all.to_sarif(|_| Some("a name that nobody has"));
        let run = &sarif["runs"][0];
        assert_eq!(run["results"][0]["ruleId"], "E012");
        assert_eq!(
            run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            "rules/a%20b.yaml"
        );
        assert_eq!(run["tool"]["driver"]["rules"][0]["shortDescription"]["text"], "a name that nobody has");
    }

    #[test]
    fn what_would_steer_a_terminal_is_not_shown() {
        let source = Source::new("t", "a: \u{1b}[31mred\n");
        let found = Diagnostic::error("E001", &source, Span::new(0, 1), "no");
        assert!(!found.render().contains('\u{1b}'));
    }
}
