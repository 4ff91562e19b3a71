//! `in file("…")`: lists kept beside the rules, put into the expressions before they are used.

use std::sync::Arc;

use ipnet::IpNet;

use super::ruleset::{RuleFile, RuleSet};
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::engine::expr::Kind;
use crate::engine::expr::ast::{Expr, ExprKind, Op, Test};
use crate::engine::label::Text;
use crate::engine::units;

/// Puts the lines of the named files in place of `file("…")`. `read` gives the text of a file that is named in a
/// rule file, or a sentence why not (E032). Blank lines and lines that begin with `#` are left out.
pub fn fill_lists(
    set: &mut RuleSet,
    read: &mut dyn FnMut(&Source, &str) -> Result<String, String>,
    out: &mut Diagnostics,
) {
    for file in &mut set.files {
        if wants_lists(file) {
            let file = Arc::make_mut(file);
            let source = Arc::clone(&file.source);
            let pools = file.pools.iter_mut().map(|pool| &mut pool.select);
            for expr in pools.chain(file.rules.iter_mut().filter_map(|rule| rule.when.as_mut())) {
                fill(expr, &source, read, out);
            }
        }
    }
}

fn wants_lists(file: &RuleFile) -> bool {
    let mut wanted = false;
    let pools = file.pools.iter().map(|pool| &pool.select);
    for expr in pools.chain(file.rules.iter().filter_map(|rule| rule.when.as_ref())) {
        expr.tests(&mut |_, test| wanted |= matches!(test.op, Op::InFile(_)));
    }
    wanted
}

fn fill(
    expr: &mut Expr,
    source: &Arc<Source>,
    read: &mut dyn FnMut(&Source, &str) -> Result<String, String>,
    out: &mut Diagnostics,
) {
    let span = expr.span;
    match &mut expr.kind {
        ExprKind::Or(parts) | ExprKind::And(parts) => {
            for part in parts {
                fill(part, source, read, out);
            }
        }
        ExprKind::Not(inner) => fill(inner, source, read, out),
        ExprKind::Test(Test { field, op, .. }) => {
            let Op::InFile(path) = op else { return };
            let path = Text::clone(path);
            match read(source, &path) {
                Ok(text) => *op = list(&text, &path, field.kind(), (source, span), out),
                Err(why) => {
                    let message = format!("the list `{path}` cannot be read");
                    out.push(Diagnostic::error("E032", source, span, message).label(why));
                }
            }
        }
        ExprKind::Percent { .. } => {}
    }
}

fn list(text: &str, path: &str, kind: Kind, at: (&Arc<Source>, Span), out: &mut Diagnostics) -> Op {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    if kind != Kind::Address {
        return Op::In(lines.map(|(_, line)| Text::from(line)).collect());
    }
    let mut networks: Vec<IpNet> = Vec::new();
    for (number, line) in lines {
        match units::network(line) {
            Some(network) => networks.push(network),
            None => {
                let message = format!("`{line}` is not an address or a CIDR block");
                out.push(Diagnostic::error("E027", at.0, at.1, message).label(format!("in {path}, line {number}")));
            }
        }
    }
    Op::InNetworks(networks.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rules::parse_files;

    const FILE: &str = "service: w\npools: {p: zone in file('zones')}\nrules:\n  - name: r\n    when: client.ip not in file('nets')\n    to: p\n";

    #[test]
    fn lists_take_the_place_of_their_files() {
        let (mut set, mut out) = parse_files(&[Source::new("t", FILE)]);
        let mut read = |_: &Source, path: &str| match path {
            "zones" => Ok("a\n# no\n\n b \n".to_owned()),
            _ => Ok("10.0.0.0/8\nnonsense\n".to_owned()),
        };
        fill_lists(&mut set, &mut read, &mut out);
        let ExprKind::Test(zones) = &set.files[0].pools[0].select.kind else { panic!("one test") };
        assert!(matches!(&zones.op, Op::In(texts) if texts.iter().map(|t| &**t).eq(["a", "b"])));
        let Some(ExprKind::Test(nets)) = set.files[0].rules[0].when.as_ref().map(|when| &when.kind) else {
            panic!("one test")
        };
        assert!(matches!(&nets.op, Op::InNetworks(nets) if nets.len() == 1) && nets.negated);
        assert_eq!(out.0.iter().map(|d| d.code).collect::<Vec<_>>(), ["E027"]);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error_where_it_is_named() {
        let (mut set, mut out) = parse_files(&[Source::new("t", FILE)]);
        fill_lists(&mut set, &mut |_, _| Err("no such file".to_owned()), &mut out);
        assert_eq!(out.0.iter().map(|d| d.code).collect::<Vec<_>>(), ["E032", "E032"]);
    }
}
