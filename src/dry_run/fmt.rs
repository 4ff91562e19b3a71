//! `check --fmt`: one layout for rule files. Comments, order and every scalar's spelling stay; what the text means is
//! compared before and after.
//!
//! Containers written in block style are blocks again, two columns further in; those in flow style stay on their line
//! where they fit and hold no comment. Comments behind a value are aligned over the lines that follow each other.

mod comments;
mod lay;

use std::sync::Arc;

use crate::engine::diagnostic::{Diagnostics, Source};
use crate::engine::yaml::{self, Node, Value};

/// Why a text stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum FmtError {
    /// It is no YAML that rule files may use.
    #[error("{}", .0.render())]
    Wrong(Diagnostics),
    /// The new layout would not mean the same, or would lose a comment. Nothing is wrong with the file.
    #[error("{0} is left as it is: its layout cannot be changed without changing what it says")]
    Unsure(String),
}

/// The text in the one layout.
///
/// # Errors
/// See [`FmtError`].
pub fn format(source: &Arc<Source>) -> Result<String, FmtError> {
    let mut out = Diagnostics::default();
    let root = yaml::parse(source, &mut out);
    let (Some(root), false) = (root, out.has_errors()) else { return Err(FmtError::Wrong(out)) };
    let comments = comments::read(&source.text, &root);
    let text = lay::lay_out(&source.text, &root, &comments);
    let unsure = || FmtError::Unsure(source.name.clone());
    let again = Source::new(source.name.clone(), text.clone());
    let new = yaml::parse(&again, &mut out).filter(|_| !out.has_errors()).ok_or_else(unsure)?;
    let kept = |all: &[comments::Comment]| all.iter().map(|comment| comment.text.clone()).collect::<Vec<_>>();
    if same(&root, &new) && kept(&comments) == kept(&comments::read(&text, &new)) { Ok(text) } else { Err(unsure()) }
}

/// Whether two trees hold the same, wherever it stands. What the rules read is a function of the tree.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar { text: a, plain: p }, Value::Scalar { text: b, plain: q }) => a == b && p == q,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| same(k, l) && same(v, w))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn formatted(text: &str) -> String {
        format(&Source::new("t.yaml", text)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_layout_is_one() {
        let text = "# head\n\n\n\nservice:   web   # the name\nhosts: [ a.example.com,b.example.com ]\npools:\n    gray:    version == 1.3   # new\n    stable: { version: 1.2 ,env: [prod,pre] } # old\n\nrules:\n- name: a\n  when: >-\n     header.x == a\n     and header.y == b\n  # why\n  to: [ gray , stable ]\n\n\n-   name: b\n    split:\n    - {to: gray,   share: 5%}\n    - to: stable\n      share: 95%\n    key: cookie.uid\n# the end\n";
        let expected = "# head\n\nservice: web  # the name\nhosts: [a.example.com, b.example.com]\npools:\n  gray: version == 1.3                      # new\n  stable: {version: 1.2, env: [prod, pre]}  # old\n\nrules:\n  - name: a\n    when: >-\n      header.x == a\n      and header.y == b\n    # why\n    to: [gray, stable]\n\n  - name: b\n    split:\n      - {to: gray, share: 5%}\n      - to: stable\n        share: 95%\n    key: cookie.uid\n# the end\n";
        assert_eq!(formatted(text), expected);
        assert_eq!(formatted(expected), expected);
    }

    #[test]
    fn what_does_not_fit_a_line_or_holds_a_comment_becomes_a_block() {
        let long =
            format!("hosts: [{}]\n", (0..20).map(|n| format!("h{n}.example.com")).collect::<Vec<_>>().join(", "));
        let text = formatted(&long);
        assert!(text.starts_with("hosts:\n  - h0.example.com\n  - h1.example.com\n"), "{text}");
        let commented = formatted("pools: {\n  a: x == 1, # one\n  # two\n  b: y == 2\n}\n");
        assert_eq!(commented, "pools:\n  a: x == 1  # one\n  # two\n  b: y == 2\n");
    }

    #[test]
    fn the_shipped_files_keep_their_meaning() {
        for entry in std::fs::read_dir("rules").unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ext| ext == "yaml") {
                let once = formatted(&std::fs::read_to_string(&path).unwrap());
                assert_eq!(formatted(&once), once, "{}", path.display());
            }
        }
    }

    #[test]
    fn a_wrong_file_is_not_touched() {
        assert!(matches!(format(&Source::new("t", "a: [1\nb: 2")), Err(FmtError::Wrong(_))));
    }

    fn scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9 ]{0,6}[a-z]",
            Just("1.30".to_owned()),
            Just("\"a # b\"".to_owned()),
            Just("'it''s: x'".to_owned()),
            Just("5%".to_owned()),
        ]
    }

    /// Indented text of a value, written behind a key or a dash.
    fn value(depth: u32) -> BoxedStrategy<(bool, Vec<String>)> {
        let leaf = (scalar(), prop_oneof![Just(""), Just("   # note"), Just(" #x")])
            .prop_map(|(text, comment)| (false, vec![format!("{text}{comment}")]));
        let flow =
            prop::collection::vec(scalar(), 0..4).prop_map(|items| (false, vec![format!("[ {} ]", items.join(" ,"))]));
        if depth == 0 {
            return prop_oneof![leaf, flow].boxed();
        }
        let list = prop::collection::vec(value(depth - 1), 1..3)
            .prop_map(|items| (true, items.into_iter().flat_map(|(block, lines)| nested("-", block, lines)).collect()));
        let map = prop::collection::vec((value(depth - 1), any::<bool>()), 1..4).prop_map(|items| {
            let pairs = items.into_iter().enumerate();
            let lines = pairs.flat_map(|(at, ((block, lines), gap))| {
                let mut all = if gap { vec![String::new(), "# over".to_owned()] } else { Vec::new() };
                all.extend(nested(&format!("k{at}:"), block, lines));
                all
            });
            (true, lines.collect())
        });
        prop_oneof![leaf, flow, list, map].boxed()
    }

    fn nested(head: &str, block: bool, lines: Vec<String>) -> Vec<String> {
        if !block {
            return vec![format!("{head} {}", lines.join(" "))];
        }
        let inner = lines.into_iter().map(|line| if line.is_empty() { line } else { format!("   {line}") });
        std::iter::once(head.to_owned()).chain(inner).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn formatting_twice_is_formatting_once((_, lines) in value(3)) {
            let text = format!("{}\n", lines.join("\n"));
            if let Ok(once) = format(&Source::new("t", text.clone())) {
                prop_assert_eq!(format(&Source::new("t", once.clone())).ok(), Some(once.clone()), "{}", once);
            } else {
                let mut out = Diagnostics::default();
                yaml::parse(&Source::new("t", text.clone()), &mut out);
                prop_assert!(out.has_errors(), "refused:\n{}", text);
            }
        }
    }
}
