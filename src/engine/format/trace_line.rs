//! An explanation in one line, for a header: JSON in ASCII, the parts that matter least left out until it fits.

use std::fmt::Write as _;

use serde::Serialize;

use super::explanation::{
    Explanation, FileNote, LabelNote, PickNote, PoliciesNote, PoolNote, RequestNote, ResortNote, ResultNote, RuleNote,
    SplitNote,
};

/// The longest line, in bytes.
pub const LONGEST: usize = 4 * 1024;

/// One try of a request that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Try {
    /// The pool that it was picked from.
    pub pool: String,
    /// Who.
    pub instance: String,
    /// Where he listens.
    pub address: String,
    /// Rank of the locality level.
    pub level: u8,
    /// It had to prove an ejected instance.
    pub probe: bool,
    /// The status that came, or why none did.
    pub outcome: String,
}

/// What is written: the explanation's parts under their own names, the most telling first.
#[derive(Serialize)]
struct Line<'e> {
    tries: &'e [Try],
    result: &'e ResultNote,
    generation: u64,
    draw: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'e FileNote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<&'e SplitNote>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rules: &'e [RuleNote],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    resort: &'e [ResortNote],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    labels: &'e [LabelNote],
    #[serde(skip_serializing_if = "Option::is_none")]
    pick: Option<&'e PickNote>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pools: &'e [PoolNote],
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'e RequestNote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<&'e PoliciesNote>,
    /// What was left out for want of room.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cut: &'e [&'static str],
}

/// Leaves a part out, and names it.
type Cut = (&'static str, fn(&mut Line<'_>));

/// What is left out, least telling first.
const CUTS: [Cut; 9] = [
    ("policies", |line| line.policies = None),
    ("request", |line| line.request = None),
    ("pools", |line| line.pools = &[]),
    ("rules", |line| line.rules = &[]),
    ("resort", |line| line.resort = &[]),
    ("labels", |line| line.labels = &[]),
    ("split", |line| line.split = None),
    ("pick", |line| line.pick = None),
    ("file", |line| line.file = None),
];

/// The explanation and what came of it in at most [`LONGEST`] bytes of printable ASCII: JSON whose parts have the names
/// that `explain --format json` gives them, `tries` beside them; `cut` names what there was no room for.
#[must_use]
pub fn write(said: &Explanation, tries: &[Try]) -> String {
    let mut line = Line {
        tries,
        result: &said.result,
        generation: said.generation,
        draw: &said.draw,
        file: said.file.as_ref(),
        split: said.split.as_ref(),
        rules: &said.rules,
        resort: &said.resort,
        labels: &said.labels,
        pick: said.pick.as_ref(),
        pools: &said.pools,
        request: Some(&said.request),
        policies: said.policies.as_ref(),
        cut: &[],
    };
    let mut cut = Vec::new();
    for (name, leave_out) in CUTS {
        let text = ascii(&Line { cut: &cut, ..line });
        if text.len() <= LONGEST {
            return text;
        }
        leave_out(&mut line);
        cut.push(name);
    }
    let text = ascii(&Line { cut: &cut, ..line });
    if text.len() <= LONGEST { text } else { r#"{"cut":["everything"]}"#.to_owned() }
}

/// JSON without anything that a field's value may not hold.
fn ascii(line: &Line<'_>) -> String {
    let json = serde_json::to_string(line).expect("strings, numbers and lists can be written");
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' => out.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                // Within a string: nowhere else has JSON such characters.
                let _ = write!(out, "\\u{unit:04x}");
            }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::format::explanation::Verdict;

    fn sample(rules: usize, name: &str) -> Explanation {
        let json = serde_json::json!({
            "request": {"method": "GET", "scheme": "http", "host": "h", "path": "/", "client": "::1", "trusted": true},
            "result": {"outcome": "routed", "rule": name, "rerouted": false},
            "file": null, "labels": [], "rules": [], "split": null, "resort": [], "pools": [], "pick": null,
            "policies": null, "generation": 7, "draw": "00000000000000ff",
        });
        let mut said: Explanation = serde_json::from_value(json).unwrap();
        let rule = RuleNote { name: name.into(), line: 3, when: None, verdict: Verdict::Failed, failed: Vec::new() };
        said.rules = vec![rule; rules];
        said
    }

    #[test]
    fn a_line_is_json_in_ascii_with_the_names_of_explain() {
        let tries = [Try { instance: "wéb-1 😀".into(), outcome: "503".into(), ..Try::default() }];
        let text = write(&sample(2, "r"), &tries);
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["tries"][0]["instance"], "wéb-1 😀");
        assert_eq!((&read["result"]["rule"], &read["rules"][1]["verdict"]), (&"r".into(), &"failed".into()));
        assert!(read.get("cut").is_none());
        assert!(http::HeaderValue::from_str(&text).is_ok());
    }

    #[test]
    fn what_has_no_room_is_named() {
        let read = |rules, name: &str| -> serde_json::Value {
            let text = write(&sample(rules, name), &[]);
            assert!(text.len() <= LONGEST, "{}", text.len());
            serde_json::from_str(&text).unwrap()
        };
        let many = read(200, "a-rule");
        assert_eq!(many["cut"], serde_json::json!(["policies", "request", "pools", "rules"]));
        assert_eq!(many["result"]["rule"], "a-rule");
        assert_eq!(read(1, &"x".repeat(LONGEST)), serde_json::json!({"cut": ["everything"]}));
    }
}
