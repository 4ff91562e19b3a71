//! Reading one map over all layers: the strongest layer that has a key gives its value; what no one asked for is an
//! error at its place; every value read is noted with its origin.

use std::sync::Arc;

use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span, nearest};
use crate::engine::yaml::{Node, Value};

use super::layers::Layer;
use super::report::{Origin, Report};

/// What all scopes of one run share.
#[derive(Debug)]
pub struct Context<'o> {
    /// What is wrong.
    pub out: &'o mut Diagnostics,
    /// What is in force.
    pub report: Report,
}

/// A map of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Place<'l> {
    /// The node.
    pub node: &'l Node,
    /// Whose.
    pub layer: &'l Layer,
}

impl Place<'_> {
    /// An error here.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, &self.layer.source, self.node.span, message)
    }
}

/// One map as the layers give it together.
#[derive(Debug)]
pub struct Scope<'l> {
    maps: Vec<Place<'l>>,
    prefix: String,
    known: Vec<&'static str>,
}

impl<'l> Scope<'l> {
    /// The whole configuration.
    pub fn root(layers: &'l [Layer], context: &mut Context<'_>) -> Self {
        let places = layers.iter().map(|layer| Place { node: &layer.root, layer });
        Self::of(places.collect(), String::new(), context)
    }

    fn of(places: Vec<Place<'l>>, prefix: String, context: &mut Context<'_>) -> Self {
        let mut maps = Vec::new();
        for place in places {
            match &place.node.value {
                Value::Map(_) => maps.push(place),
                _ if place.node.is_null() => {}
                _ => {
                    let what = if prefix.is_empty() { "the configuration" } else { prefix.trim_end_matches('.') };
                    let message = format!("{what} must be a map, not {}", place.node.kind());
                    context.out.push(place.error("E002", message));
                }
            }
        }
        Self { maps, prefix, known: Vec::new() }
    }

    /// The strongest layer's node for a key. Null counts as not written.
    pub fn find(&mut self, key: &'static str) -> Option<Place<'l>> {
        self.all(key).into_iter().find(|place| !place.node.is_null())
    }

    fn all(&mut self, key: &'static str) -> Vec<Place<'l>> {
        self.known.push(key);
        let within = |map: &Place<'l>| {
            let node = map.node.map()?.iter().find(|(k, _)| k.text() == Some(key)).map(|(_, node)| node)?;
            Some(Place { node, layer: map.layer })
        };
        self.maps.iter().filter_map(within).collect()
    }

    /// The map under a key.
    pub fn map(&mut self, key: &'static str, context: &mut Context<'_>) -> Self {
        let places = self.all(key);
        Self::of(places, format!("{}{key}.", self.prefix), context)
    }

    /// Whether any layer writes something under this scope.
    pub fn is_written(&self) -> bool {
        self.maps.iter().any(|map| map.node.map().is_some_and(|pairs| !pairs.is_empty()))
    }

    /// The strongest layer's list under a key (one that is no list counts as a list of itself), an item a scope.
    pub fn items(&mut self, key: &'static str, context: &mut Context<'_>) -> Option<Vec<Item<'l>>> {
        let place = self.find(key)?;
        let nodes = match &place.node.value {
            Value::List(nodes) => nodes.iter().collect(),
            _ => vec![place.node],
        };
        if nodes.is_empty() {
            self.note(key, "[]".to_owned(), place.layer.origin.clone(), context);
        }
        let prefix = &self.prefix;
        let item =
            |(at, node)| Item { place: Place { node, layer: place.layer }, prefix: format!("{prefix}{key}[{at}].") };
        Some(nodes.into_iter().enumerate().map(item).collect())
    }

    /// A value by its parser; what is written there, else the default, which is written as a file would.
    pub fn value<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        context: &mut Context<'_>,
    ) -> T {
        if let Some(place) = self.find(key) {
            match place.node.text().map(&parse) {
                Some(Ok(value)) => {
                    self.note(key, show(place.node), place.layer.origin.clone(), context);
                    return value;
                }
                Some(Err(why)) => context.out.push(place.error("E901", format!("`{}{key}`: {why}", self.prefix))),
                None => {
                    let message = format!("`{}{key}` must be a scalar, not {}", self.prefix, place.node.kind());
                    context.out.push(place.error("E002", message));
                }
            }
        }
        self.note(key, default.to_owned(), Origin::Default, context);
        parse(default).expect("defaults are written as they are read; a test reads them all")
    }

    /// A value that must be written; where it is not, the error stands at `owner`.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        owner: Place<'_>,
        context: &mut Context<'_>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            context.out.push(owner.error("E902", format!("`{}{key}` is missing", self.prefix)));
            return None;
        }
        self.optional(key, parse, context)
    }

    /// A value that need not be there.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        context: &mut Context<'_>,
    ) -> Option<T> {
        self.value(key, "null", |text| if text == "null" { Ok(None) } else { parse(text).map(Some) }, context)
    }

    /// A list of values; a scalar is a list of one. Not there: the default's words, separated by commas.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        context: &mut Context<'_>,
    ) -> Vec<T> {
        let Some(place) = self.find(key) else {
            self.note(key, format!("[{default}]"), Origin::Default, context);
            let words = default.split(", ").filter(|word| !word.is_empty());
            return words.map(|word| parse(word).expect("defaults are written as they are read")).collect();
        };
        self.note(key, show(place.node), place.layer.origin.clone(), context);
        let nodes = place.node.list().map_or_else(|| vec![place.node], |items| items.iter().collect());
        let mut values = Vec::new();
        for node in nodes {
            let item = Place { node, layer: place.layer };
            match node.text().map(&parse) {
                Some(Ok(value)) => values.push(value),
                Some(Err(why)) => context.out.push(item.error("E901", format!("`{}{key}`: {why}", self.prefix))),
                None => {
                    let message = format!("`{}{key}` holds scalars, not {}", self.prefix, node.kind());
                    context.out.push(item.error("E002", message));
                }
            }
        }
        values
    }

    /// A secret text: read like any, shown as `<secret>`.
    pub fn secret(&mut self, key: &'static str, context: &mut Context<'_>) -> Option<String> {
        let value = self.optional(key, |text| Ok(text.to_owned()), context);
        if value.is_some() {
            context.report.hide_last();
        }
        value
    }

    /// Keys that are not known beforehand, of all layers, the strongest's value for each; in written order.
    pub fn open_map(&mut self, key: &'static str, context: &mut Context<'_>) -> Vec<(Place<'l>, Place<'l>)> {
        let map = self.map(key, context);
        let mut pairs: Vec<(Place<'l>, Place<'l>)> = Vec::new();
        for place in &map.maps {
            for (key, value) in place.node.map().unwrap_or_default() {
                if pairs.iter().all(|(seen, _)| seen.node.text() != key.text()) {
                    pairs.push((Place { node: key, layer: place.layer }, Place { node: value, layer: place.layer }));
                }
            }
        }
        for (name, value) in &pairs {
            let path = format!("{}{key}.{}", self.prefix, name.node.text().unwrap_or(""));
            context.report.note(path, show(value.node), value.layer.origin.clone());
        }
        pairs
    }

    /// Notes what is in force for a key.
    pub fn note(&self, key: &str, value: String, origin: Origin, context: &mut Context<'_>) {
        context.report.note(format!("{}{key}", self.prefix), value, origin);
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self, context: &mut Context<'_>) {
        let known = self.known.iter().copied();
        let what = match self.prefix.trim_end_matches('.') {
            "" => "the configuration".to_owned(),
            prefix => format!("`{prefix}`"),
        };
        for map in &self.maps {
            for (key, _) in map.node.map().unwrap_or_default() {
                let text = key.text().unwrap_or("");
                if self.known.contains(&text) {
                    continue;
                }
                let error = unknown(&map.layer.source, key.span, text, &what);
                context.out.push(match nearest(text, known.clone()) {
                    Some(near) => error.label(format!("did you mean `{near}`?")),
                    None => error.help(format!("known keys: {}", self.known.join(", "))),
                });
            }
        }
    }
}

fn unknown(source: &Arc<Source>, span: Span, key: &str, what: &str) -> Diagnostic {
    Diagnostic::error("E001", source, span, format!("unknown key `{key}` in {what}"))
}

/// One item of a list.
#[derive(Debug)]
pub struct Item<'l> {
    /// Where it stands.
    pub place: Place<'l>,
    prefix: String,
}

impl<'l> Item<'l> {
    /// Notes the whole item's value.
    pub fn note(&self, value: &str, context: &mut Context<'_>) {
        let origin = self.place.layer.origin.clone();
        context.report.note(self.prefix.trim_end_matches('.').to_owned(), value.to_owned(), origin);
    }

    /// The item as a map.
    pub fn scope(self, context: &mut Context<'_>) -> Scope<'l> {
        Scope::of(vec![self.place], self.prefix, context)
    }
}

/// A node as one line of YAML.
pub fn show(node: &Node) -> String {
    match &node.value {
        Value::Scalar { text, .. } if node.is_null() => text.clone(),
        Value::Scalar { text, plain } => {
            let simple = |b: u8| b.is_ascii_alphanumeric() || b"_-./%:@*+".contains(&b);
            let safe = !text.is_empty() && text.bytes().all(simple) && !text.ends_with(':') && !text.contains(": ");
            if *plain || safe { text.clone() } else { serde_json::Value::from(text.as_str()).to_string() }
        }
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{}: {}", show(key), show(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}
