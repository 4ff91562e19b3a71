//! `rules`: what is done with a request, the first match wins.

use super::file::{Names, fallback, pool_list};
use super::read::Reader;
use super::ruleset::{Action, Rule, Split};
use super::{policies, split};
use crate::engine::diagnostic::{Span, Spanned};
use crate::engine::expr::ast::Field;
use crate::engine::expr::{self, Kind, Written};
use crate::engine::label::Text;
use crate::engine::yaml::{Fields, Node};

const ACTIONS: &str = "`to`, `split`, `redirect` and `respond`";

/// Keys of a file that rules do not have.
const OF_THE_FILE: [&str; 13] = [
    "service",
    "hosts",
    "paths",
    "pools",
    "lanes",
    "locality",
    "labels",
    "propagate",
    "trusted",
    "check",
    "eject",
    "slow_start",
    "upstream",
];

/// All rules in order; names are unique.
pub(super) fn rules(r: &mut Reader<'_>, node: &Node, names: &Names) -> Vec<Rule> {
    let Some(items) = node.list() else {
        r.push(r.error("E002", node.span, format!("`rules` must be a list, not {}", node.kind())));
        return Vec::new();
    };
    let mut found: Vec<Rule> = Vec::new();
    let mut taken: Vec<Spanned<Text>> = Vec::new();
    for item in items {
        let name = item.map().and_then(|pairs| pairs.iter().find(|(key, _)| key.text() == Some("name")));
        if let Some((_, node)) = name
            && let Some(text) = node.text()
        {
            if let Some(first) = taken.iter().find(|other| &*other.value == text) {
                let problem = r.error("E010", node.span, format!("two rules are named `{text}`"));
                let problem = problem.related(r.source, first.span, "first written");
                r.push(problem);
            }
            taken.push(Spanned::new(text.into(), node.span));
        }
        found.extend(rule(r, item, names));
    }
    found
}

fn rule(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Rule> {
    let mut fields = r.fields(node, "a rule")?;
    fields.misplaced(&OF_THE_FILE, "belongs at the file's top");
    let name = match fields.take("name") {
        Some(node) => r.name(node, "a rule's name"),
        None => {
            r.missing(node.span, "a rule", "name");
            None
        }
    };
    let when = match fields.take("when") {
        Some(node) => condition(r, node, names).map(Some),
        None => Some(None),
    };
    let salt = fields.take("salt").and_then(|node| r.text(node, "`salt`")).map(Text::from);
    let salt = salt.or_else(|| name.as_ref().map(|name| name.value.clone())).unwrap_or_else(|| "".into());
    let action = action(r, &mut fields, node.span, &salt, names);
    let fallback = fields.take("else").and_then(|node| fallback(r, node));
    let policies = policies::policies(r, &mut fields, names);
    r.close(fields);
    Some(Rule { name: name?, span: node.span, when: when?, action: action?, salt, fallback, policies })
}

fn condition(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<expr::ast::Expr> {
    r.text(node, "`when`")?;
    let written = Written::scalar(node, r.source)?;
    expr::parse_request(&written, Some(&names.labels), r.out)
}

/// Exactly one of the four.
fn action(r: &mut Reader<'_>, fields: &mut Fields<'_>, span: Span, salt: &Text, names: &Names) -> Option<Action> {
    let to = fields.take("to");
    let arms = fields.take("split");
    let redirect = fields.take("redirect");
    let respond = fields.take("respond");
    let to_action = to.and_then(|node| {
        let pools = pool_list(r, node, names);
        (!pools.is_empty()).then_some(Action::To(pools))
    });
    let split_action = split_action(r, fields, arms, salt, names);
    let redirect_action = redirect.and_then(|node| redirection(r, node));
    let respond_action = respond.and_then(|node| answer(r, node));

    let written = [("to", to), ("split", arms), ("redirect", redirect), ("respond", respond)];
    let written: Vec<&str> = written.iter().filter(|(_, node)| node.is_some()).map(|(key, _)| *key).collect();
    match written.as_slice() {
        [_] => {}
        [] => {
            let first = Span::new(span.start, span.start + 1);
            let line = r.source.text.get(span.start..span.end).and_then(|text| text.lines().next()).map_or(1, str::len);
            let problem = r.error(
                "E011",
                Span::new(first.start, first.start + line),
                format!("a rule needs exactly one of {ACTIONS}"),
            );
            r.push(problem);
        }
        [first, second, ..] => {
            let at = |key: &str| fields.key_span(key).unwrap_or(span);
            let problem = r.error("E011", at(second), format!("a rule needs exactly one of {ACTIONS}"));
            let problem = problem.label("one too many").related(r.source, at(first), "beside");
            r.push(problem);
            return None;
        }
    }
    to_action.or(split_action).or(redirect_action).or(respond_action)
}

/// The split with `key`, `mint` and `epoch`, which have no meaning without it.
fn split_action(
    r: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    arms: Option<&Node>,
    salt: &Text,
    names: &Names,
) -> Option<Action> {
    let key = fields.take("key");
    let mint = fields.take("mint");
    let epoch = fields.take("epoch");
    if arms.is_none() {
        for name in ["key", "mint", "epoch"] {
            if let Some(at) = fields.key_span(name) {
                let problem = r.error("E006", at, format!("`{name}` has no meaning without `split`"));
                r.push(problem);
            }
        }
    }
    let key = key.map_or_else(Vec::new, |node| keys(r, node, names));
    let mint = mint.and_then(|node| r.boolean(node)).unwrap_or(true);
    let epoch = epoch.and_then(|node| r.integer(node, 0..=u32::MAX)).unwrap_or(0);
    let arms = split::arms(r, arms?, names)?;
    Some(Action::Split(Split {
        arms: arms.arms,
        percents: arms.percents,
        key,
        mint,
        salt: salt.clone(),
        epoch,
        from_map: arms.from_map,
    }))
}

fn keys(r: &mut Reader<'_>, node: &Node, names: &Names) -> Vec<Spanned<Field>> {
    r.items(node, "`key`").iter().filter_map(|item| key(r, item, names)).collect()
}

/// A request field that holds one value.
pub(super) fn key(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Spanned<Field>> {
    r.text(node, "a key")?;
    let field = expr::parse_field(&Written::scalar(node, r.source)?, Some(&names.labels), r.out)?;
    if field.kind() == Kind::List {
        let problem = r.error("E022", node.span, format!("`{field}` is a list, and a key is one value"));
        r.push(problem);
        return None;
    }
    Some(Spanned::new(field, node.span))
}

/// `redirect: https://…` (302), or `redirect: {status: 301, location: …}`.
fn redirection(r: &mut Reader<'_>, node: &Node) -> Option<Action> {
    if node.map().is_none() {
        return Some(Action::Redirect { status: 302, location: location(r, node)? });
    }
    let mut fields = r.fields(node, "`redirect`")?;
    let target = match fields.take("location") {
        Some(node) => location(r, node),
        None => {
            r.missing(node.span, "`redirect`", "location");
            None
        }
    };
    let status = fields.take("status").map_or(Some(302), |node| {
        let known = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
        r.word(node, &known)
    });
    r.close(fields);
    Some(Action::Redirect { status: status?, location: target? })
}

fn location(r: &mut Reader<'_>, node: &Node) -> Option<Text> {
    let text = r.text(node, "`location`")?;
    r.header_value(node)?;
    if !text.starts_with('/') && !text.starts_with("http://") && !text.starts_with("https://") {
        return r.malformed(node, "a path, or a URL with `http://` or `https://`");
    }
    Some(text.into())
}

/// `respond: 204`, or `respond: {status, body, content_type}`.
fn answer(r: &mut Reader<'_>, node: &Node) -> Option<Action> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if node.map().is_none() {
        let status = r.status(node, 200..=599)?;
        return Some(Action::Respond { status, body: "".into(), content_type: PLAIN.into() });
    }
    let mut fields = r.fields(node, "`respond`")?;
    let status = fields.take("status").map_or(Some(200), |node| r.status(node, 200..=599));
    let body = fields.take("body").map_or(Some(""), |node| match node.text() {
        Some(text) => Some(text),
        None => r.malformed(node, "text"),
    });
    let content_type = fields.take("content_type").map_or(Some(PLAIN), |node| {
        r.header_value(node)?;
        node.text()
    });
    r.close(fields);
    Some(Action::Respond { status: status?, body: body?.into(), content_type: content_type?.into() })
}
