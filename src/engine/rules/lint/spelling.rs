//! Lints on paths that are written as no request shows them: rules see one normal form (`engine::paths`).

use super::{Certainty, Findings};
use crate::engine::diagnostic::Span;
use crate::engine::expr::ast::{Field, Op, Operand};
use crate::engine::route::path::normalise;

/// A path in a condition or a claim that normalisation never yields. Suspected: `paths` of the configuration may say
/// otherwise.
pub(super) fn path_not_normal(found: &mut Findings<'_>) {
    let mut odd: Vec<(Span, String, String)> = Vec::new();
    for claimed in &found.file.paths {
        if let Some(why) = never_seen(Part::Whole, &claimed.value) {
            odd.push((claimed.span, format!("no request's path is under `{}`", claimed.value), why));
        }
    }
    for condition in found.file.rules.iter().filter_map(|rule| rule.when.as_ref()) {
        condition.tests(&mut |term, test| {
            if test.field != Field::Path {
                return;
            }
            for (part, text) in parts(&test.op) {
                // One without its slash is W010.
                let whole = text.starts_with('/') || matches!(part, Part::End | Part::Middle);
                if let Some(why) = never_seen(part, text).filter(|_| whole) {
                    odd.push((term.span, format!("`path` is never met by `{text}`"), why));
                }
            }
        });
    }
    for (span, message, why) in odd {
        found.report(span, message, why).certainty(Certainty::Suspected);
    }
}

/// Which part of a path a text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Beginning,
    End,
    Middle,
}

fn parts(op: &Op) -> Vec<(Part, &str)> {
    match op {
        Op::Equal(Operand::Text(text)) | Op::Under(text) => vec![(Part::Whole, text)],
        Op::In(texts) => texts.iter().map(|text| (Part::Whole, &**text)).collect(),
        Op::Starts(text) => vec![(Part::Beginning, text)],
        Op::Ends(text) => vec![(Part::End, text)],
        Op::Contains(text) => vec![(Part::Middle, text)],
        _ => Vec::new(),
    }
}

/// Why no path has this part by default, and what to write.
fn never_seen(part: Part, text: &str) -> Option<String> {
    let before = if matches!(part, Part::End | Part::Middle) { "/x" } else { "" };
    // The escape at an end may go on, and so may a segment of dots.
    let (text, behind) = match part {
        Part::Beginning | Part::Middle => (unfinished_cut(text), "x"),
        Part::Whole | Part::End => (text, ""),
    };
    let asked = format!("{before}{text}{behind}");
    match normalise(&asked) {
        Ok(normal) if *normal == *asked => None,
        Ok(normal) => {
            let bare = normal.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
            Some(match bare.filter(|bare| !bare.is_empty() && *bare != text) {
                Some(bare) => format!("paths are normalised before they are matched: write `{bare}`"),
                None => "paths are normalised before they are matched".into(),
            })
        }
        Err(why) => Some(format!("such a request is refused before any rule: {why}")),
    }
}

/// Without an escape that is not whole.
fn unfinished_cut(text: &str) -> &str {
    let begun = text.rfind('%').filter(|at| text.len() - at < 3);
    begun.map_or(text, |at| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_normalisation_never_yields_is_odd() {
        let seen = |part, text: &str| never_seen(part, text).is_none();
        for text in ["/", "/a", "/a/", "/a/b%20c", "/%C3%A9", "/a.b", "/.well-known", "/a/...", "/a%21"] {
            assert!(seen(Part::Whole, text), "{text}");
        }
        for text in [
            "//", "/a//b", "/a/./b", "/a/../b", "/..", "/%41", "/%7euser", "/%c3%a9", "/\u{e9}", "/a%2Fb", "/a\\b",
            "/%00", "/%", "/a b",
        ] {
            assert!(!seen(Part::Whole, text), "{text}");
        }
        for text in ["/a/.", "/a/..", "/a%", "/a%2", "/a/"] {
            assert!(seen(Part::Beginning, text), "{text}");
        }
        assert!(!seen(Part::Beginning, "/a//") && !seen(Part::Beginning, "/%41"));
        assert!(
            seen(Part::End, ".html") && seen(Part::End, "/a.") && !seen(Part::End, "/..") && !seen(Part::End, "%2f")
        );
        assert!(seen(Part::Middle, "/admin/") && seen(Part::Middle, "..") && !seen(Part::Middle, "//"));
        assert!(!seen(Part::Middle, "/../") && !seen(Part::Middle, "%2F"));
    }

    #[test]
    fn the_normal_spelling_is_offered() {
        let told = |part, text: &str| never_seen(part, text).unwrap_or_default();
        assert!(told(Part::Whole, "/a//%62/../c").ends_with("write `/a/c`"));
        assert!(told(Part::End, "%41.html").ends_with("write `A.html`"));
        assert!(told(Part::Whole, "/a%2Fb").contains("refused before any rule: the path has an encoded slash"));
    }
}
