//! Layers: trees as written, each from one place, the strongest first.

use std::sync::Arc;

use crate::engine::diagnostic::{Diagnostics, Source, Span};
use crate::engine::yaml::{self, Node, Value};

use super::report::Origin;

/// One tree and where it came from.
#[derive(Debug)]
pub struct Layer {
    /// A map.
    pub root: Node,
    /// The text that spans point into.
    pub source: Arc<Source>,
    /// What kind of place.
    pub origin: Origin,
}

impl Layer {
    /// A whole YAML text. Nothing at all is an empty map.
    pub fn of_text(source: Arc<Source>, origin: Origin, out: &mut Diagnostics) -> Option<Self> {
        let mut root = yaml::parse(&source, out)?;
        if root.is_null() {
            root.value = Value::Map(Vec::new());
        }
        Some(Self { root, source, origin })
    }

    /// One value (YAML) at a path; spans point into the value's text, the source is named after where it was said.
    pub fn of_value(path: &[&str], name: &str, value: &str, origin: Origin, out: &mut Diagnostics) -> Option<Self> {
        let source = Source::new(name, value);
        let leaf = yaml::parse(&source, out)?;
        Some(Self { root: nest(path, leaf, value.len()), source, origin })
    }

    /// Text at a path, as it is: for flags and for what is not ours to parse.
    pub fn of_text_value(path: &[&str], name: &str, value: &str, origin: Origin) -> Self {
        Self::of_node(path, name, value, scalar(value, value.len()), origin)
    }

    /// A list of texts at a path.
    pub fn of_texts(path: &[&str], name: &str, values: &[String], origin: Origin) -> Self {
        let text = values.join(" ");
        let mut at = 0;
        let items = values.iter().map(|value| {
            let span = Span::new(at, at + value.len());
            at = span.end + 1;
            Node { value: Value::Scalar { text: value.clone(), plain: false }, span }
        });
        let list = Node { value: Value::List(items.collect()), span: Span::new(0, text.len()) };
        Self::of_node(path, name, &text, list, origin)
    }

    /// A node at a path.
    pub fn of_node(path: &[&str], name: &str, text: &str, node: Node, origin: Origin) -> Self {
        Self { root: nest(path, node, text.len()), source: Source::new(name, text), origin }
    }
}

fn scalar(text: &str, len: usize) -> Node {
    Node { value: Value::Scalar { text: text.to_owned(), plain: false }, span: Span::new(0, len) }
}

fn nest(path: &[&str], leaf: Node, len: usize) -> Node {
    path.iter()
        .rev()
        .fold(leaf, |node, key| Node { value: Value::Map(vec![(scalar(key, len), node)]), span: Span::new(0, len) })
}

/// `POINTSMAN_LIMITS__HEAD=5s`: the path joined by `__`, the value in YAML. `POINTSMAN_LOG` is the log's filter.
pub fn environment(variables: &[(String, String)], out: &mut Diagnostics) -> Vec<Layer> {
    let ours = |name: &str| name.strip_prefix("POINTSMAN_").filter(|rest| *rest != "LOG").map(str::to_ascii_lowercase);
    let mut layers: Vec<_> = variables.iter().filter_map(|(name, value)| Some((ours(name)?, name, value))).collect();
    // A variable that says more (a longer path) beats one that says less.
    layers.sort_by_key(|(path, ..)| (std::cmp::Reverse(path.matches("__").count()), path.clone()));
    let layer = |(path, name, value): (String, &String, &String)| {
        let path: Vec<&str> = path.split("__").collect();
        Layer::of_value(&path, name, value, Origin::Environment(name.clone()), out)
    };
    layers.into_iter().filter_map(layer).collect()
}

/// The variables that Consul's own tools read (CATALOGS.md T1).
pub fn consul(variables: &[(String, String)]) -> Vec<Layer> {
    let variable = |name: &str| variables.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str());
    let layer = |name: &'static str, path: &[&str], value: &str| {
        let path: Vec<&str> = ["catalog", "consul"].iter().chain(path).copied().collect();
        Layer::of_text_value(&path, name, value, Origin::ConsulVariable(name))
    };
    let mut layers = Vec::new();
    let ssl = variable("CONSUL_HTTP_SSL").is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true"));
    if let Some(address) = variable("CONSUL_HTTP_ADDR") {
        let scheme = if ssl { "https" } else { "http" };
        let whole = if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
        layers.push(layer("CONSUL_HTTP_ADDR", &["address"], &whole));
    } else if ssl {
        layers.push(layer("CONSUL_HTTP_SSL", &["address"], "https://127.0.0.1:8501"));
    }
    for (name, path) in [
        ("CONSUL_HTTP_TOKEN", &["token"][..]),
        ("CONSUL_HTTP_TOKEN_FILE", &["token_file"]),
        ("CONSUL_HTTP_AUTH", &["auth"]),
        ("CONSUL_CACERT", &["tls", "ca_file"]),
        ("CONSUL_CLIENT_CERT", &["tls", "cert_file"]),
        ("CONSUL_CLIENT_KEY", &["tls", "key_file"]),
        ("CONSUL_TLS_SERVER_NAME", &["tls", "server_name"]),
        ("CONSUL_NAMESPACE", &["namespace"]),
        ("CONSUL_PARTITION", &["partition"]),
    ] {
        layers.extend(variable(name).map(|value| layer(name, path, value)));
    }
    if let Some(verify) = variable("CONSUL_HTTP_SSL_VERIFY") {
        let off = matches!(verify.to_ascii_lowercase().as_str(), "0" | "false");
        layers.push(layer("CONSUL_HTTP_SSL_VERIFY", &["tls", "verify"], if off { "false" } else { "true" }));
    }
    let folder = variable("STATE_DIRECTORY").and_then(|all| all.split(':').next());
    layers.extend(
        folder.map(|folder| layer("STATE_DIRECTORY", &["disk", "path"], &format!("{folder}/catalog-consul.json"))),
    );
    layers
}
