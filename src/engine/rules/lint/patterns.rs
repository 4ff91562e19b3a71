//! Lints on what texts are compared with: patterns, prefixes, names of headers.

use super::prove::Want;
use super::reach::request_for;
use super::witness::{HOST, PATH};
use super::{Certainty, Findings, candidates};
use crate::engine::expr::ast::{Expr, Field, Op, Operand, Test};
use crate::engine::label::Text;
use crate::engine::rules::ruleset::Rule;

/// Every test of every condition and selector, with the rule it stands in.
fn tests<'f>(found: &Findings<'f>) -> Vec<(&'f Expr, &'f Test, Option<&'f Rule>)> {
    let mut all = Vec::new();
    for pool in &found.file.pools {
        pool.select.tests(&mut |term, test| all.push((term, test, None)));
    }
    for rule in &found.file.rules {
        if let Some(when) = &rule.when {
            when.tests(&mut |term, test| all.push((term, test, Some(rule))));
        }
    }
    all
}

pub(super) fn version_prefix(found: &mut Findings<'_>) {
    for (term, test, _) in tests(found) {
        let (Field::Label(label), Op::Starts(text)) = (&test.field, &test.op) else { continue };
        let digits = text.trim_start_matches('v');
        let numbers =
            digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.ends_with(|c: char| c.is_ascii_digit());
        if label.contains("version") && numbers {
            let message = format!("`{}` compares a version as text: `{text}0` begins with `{text}` too", term.text);
            found.report(term.span, message, format!("write `{label} ~ \"~{digits}\"`, or end the text with a dot"));
        }
    }
}

pub(super) fn unescaped_dot(found: &mut Findings<'_>) {
    for (term, test, rule) in tests(found) {
        let hosts = match &test.field {
            Field::Host | Field::TlsSni | Field::TlsClientSan => true,
            Field::Header(name) => *name == http::header::HOST,
            _ => false,
        };
        let Op::Matches(pattern) = &test.op else { continue };
        if !hosts || !loose_dot(pattern) {
            continue;
        }
        let also = candidates::samples(pattern).into_iter().next().map(Text::from);
        let matching = also.filter(|also| found.prover.pattern(pattern).is_some_and(|p| p.is_match(also.as_bytes())));
        let message = format!("a dot in `{pattern}` stands for any character");
        let label = match &matching {
            Some(also) => format!("it matches `{also}` too; a dot itself is written `\\.`"),
            None => "a dot itself is written `\\.`".to_owned(),
        };
        let with = matching.as_ref().map(|also| Op::Equal(Operand::Text(Text::clone(also))));
        let ask = match (rule, &with, &test.field) {
            (Some(rule), Some(with), Field::Host) if !test.negated => {
                request_for(found, rule, Want::Test(&HOST, with, true))
            }
            _ => None,
        };
        let certainty = if matching.is_some() { Certainty::Proven } else { Certainty::Suspected };
        found.report(term.span, message, label).certainty(certainty).ask(ask);
    }
}

/// A dot that is neither escaped, nor in a class, nor repeated, between what looks like a name's characters.
fn loose_dot(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    let mut class = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => class = true,
            b']' => class = false,
            b'.' if !class && at > 0 => {
                let name = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if bytes.get(at + 1).is_some_and(|b| name(*b))
                    && (name(bytes[at - 1]) || b")]+*".contains(&bytes[at - 1]))
                {
                    return true;
                }
            }
            _ => {}
        }
        at += 1;
    }
    false
}

pub(super) fn anchors(found: &mut Findings<'_>) {
    for (term, test, _) in tests(found) {
        let Op::Matches(pattern) = &test.op else { continue };
        let (start, end) = (pattern.starts_with('^'), pattern.ends_with('$') && !pattern.ends_with("\\$"));
        let split = top_level_bar(pattern);
        if (!start && !end) || (start && end && !split) {
            continue;
        }
        let readings: Vec<String> = if split { bars(pattern) } else { vec![pattern.to_string()] };
        let elsewhere: Vec<String> = readings
            .iter()
            .map(|part| match (part.strip_prefix('^'), part.strip_suffix('$')) {
                (Some(rest), None) => format!("begins with `{rest}`"),
                (None, Some(rest)) => format!("ends with `{rest}`"),
                (None, None) => format!("holds `{part}`"),
                (Some(_), Some(_)) => format!("is `{}`", part.trim_matches(['^', '$'])),
            })
            .collect();
        let here: Vec<String> = readings.iter().map(|part| format!("`{}`", part.trim_matches(['^', '$']))).collect();
        let message = format!("`{pattern}` is matched against the whole value here: it is {}", here.join(" or "));
        found
            .report(term.span, message, format!("where patterns are searched for: it {}", elsewhere.join(", or ")))
            .help("leave the anchors out, and write `.*` where anything may stand");
    }
}

fn top_level_bar(pattern: &str) -> bool {
    bars(pattern).len() > 1
}

/// The alternatives at the top.
fn bars(pattern: &str) -> Vec<String> {
    let (mut depth, mut class, mut escaped) = (0, false, false);
    let mut parts = vec![String::new()];
    for c in pattern.chars() {
        let plain = !escaped;
        escaped = plain && c == '\\';
        match c {
            '[' if plain => class = true,
            ']' if plain => class = false,
            '(' if plain && !class => depth += 1,
            ')' if plain && !class => depth -= 1,
            '|' if plain && !class && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

pub(super) fn plain_pattern(found: &mut Findings<'_>) {
    for (term, test, _) in tests(found) {
        let Op::Matches(pattern) = &test.op else { continue };
        let inner = pattern.strip_prefix(".*").unwrap_or(pattern);
        let inner = inner.strip_suffix(".*").unwrap_or(inner);
        if inner.is_empty() || inner.contains(['.', '^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\']) {
            continue;
        }
        let sign = match (pattern.starts_with(".*"), pattern.ends_with(".*")) {
            (false, false) => "==",
            (false, true) => "starts",
            (true, false) => "ends",
            (true, true) => "contains",
        };
        let message = format!("the pattern `{pattern}` is plain text");
        let certainty = match test.field {
            // A dot does not match a line feed, which only these can hold.
            Field::Query(_) | Field::Cookie(_) if sign != "==" => Certainty::Suspected,
            _ => Certainty::Proven,
        };
        found
            .report(term.span, message, format!("the same as `{} {sign} \"{inner}\"`", test.field))
            .certainty(certainty);
    }
}

pub(super) fn path_prefix(found: &mut Findings<'_>) {
    for (term, test, rule) in tests(found) {
        let (Field::Path, Op::Starts(text)) = (&test.field, &test.op) else { continue };
        if text.len() < 2 || !text.ends_with(|c: char| c.is_ascii_alphanumeric()) {
            continue;
        }
        let other = Op::Equal(Operand::Text(format!("{text}on").into()));
        let ask = match rule {
            Some(rule) if !test.negated => request_for(found, rule, Want::Test(&PATH, &other, true)),
            _ => None,
        };
        let message = format!("`{text}on` begins with `{text}` too");
        let certainty = if ask.is_some() { Certainty::Proven } else { Certainty::Suspected };
        found
            .report(term.span, message, format!("`path under \"{text}\"` goes by segment"))
            .certainty(certainty)
            .ask(ask);
    }
}

pub(super) fn header_names(found: &mut Findings<'_>) {
    let file = found.file;
    let mut read: Vec<(crate::engine::diagnostic::Span, String)> = Vec::new();
    for (term, test, _) in tests(found) {
        if let Field::Header(name) = &test.field {
            read.push((term.span, name.as_str().to_owned()));
        }
    }
    for rule in &file.rules {
        if let crate::engine::rules::ruleset::Action::Split(split) = &rule.action {
            for key in &split.key {
                if let Field::Header(name) = &key.value {
                    read.push((key.span, name.as_str().to_owned()));
                }
            }
        }
    }
    for (span, name) in read {
        let label = match name.as_str() {
            "host" => "HTTP/2 has no such header: read `host`",
            "cookie" => "read one cookie with `cookie.NAME`",
            "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
                "it belongs to one connection; HTTP/2 does not carry it"
            }
            _ => continue,
        };
        found.report(span, format!("`header.{name}` is not what rules should read"), label);
    }
}
