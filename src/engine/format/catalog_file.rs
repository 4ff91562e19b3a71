//! The catalog file (CLI.md): the catalog's whole state as YAML or JSON. Strict; every problem with its place.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span, nearest};
use crate::engine::instance::{Instance, Status, Weights};
use crate::engine::label::{Labels, Text};
use crate::engine::yaml::{self, Fields, Node};

/// The largest weight.
const MAX_WEIGHT: u32 = 65_535;

/// What a catalog file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogFile {
    /// Services in name order; instances in written order.
    pub services: Vec<(Text, Vec<Arc<Instance>>)>,
}

/// Reads a catalog file. With errors among the diagnostics it is not to be used.
#[must_use]
pub fn parse(source: &Arc<Source>) -> (CatalogFile, Diagnostics) {
    let mut reading = Reading { source, out: Diagnostics::default() };
    let mut file = CatalogFile::default();
    if let Some(root) = yaml::parse(source, &mut reading.out) {
        reading.file(&root, &mut file);
    }
    file.services.sort_by(|a, b| a.0.cmp(&b.0));
    (file, reading.out)
}

/// Writes a catalog file that [`parse`] reads back. Values are quoted, so that no reader takes `1.10` for a number.
#[must_use]
pub fn write(file: &CatalogFile) -> String {
    let mut out = String::from("services:");
    if file.services.is_empty() {
        out.push_str(" {}");
    }
    out.push('\n');
    for (name, instances) in &file.services {
        let _ = writeln!(out, "  {}{}", key(name, "\n  "), if instances.is_empty() { " []" } else { "" });
        for instance in instances {
            write_instance(&mut out, instance);
        }
    }
    out
}

fn write_instance(out: &mut String, instance: &Instance) {
    let _ = writeln!(out, "    - id: {}", quoted(&instance.id));
    let _ = writeln!(out, "      address: {}", quoted(&instance.addr.ip().to_string()));
    let _ = writeln!(out, "      port: {}", instance.addr.port());
    for (key, value) in [("node", &instance.node), ("dc", &instance.dc)] {
        if !value.is_empty() {
            let _ = writeln!(out, "      {key}: {}", quoted(value));
        }
    }
    if !instance.labels.is_empty() {
        let pairs = instance.labels.iter().map(|(key, value)| format!("{} {}", self::key(key, " "), quoted(value)));
        let _ = writeln!(out, "      labels: {{{}}}", pairs.collect::<Vec<_>>().join(", "));
    }
    if !instance.tags.is_empty() {
        let tags = instance.tags.iter().map(|tag| quoted(tag));
        let _ = writeln!(out, "      tags: [{}]", tags.collect::<Vec<_>>().join(", "));
    }
    let Weights { passing, warning } = instance.weights;
    if passing != warning {
        let _ = writeln!(out, "      weights: {{passing: {passing}, warning: {warning}}}");
    } else if passing != 1 {
        let _ = writeln!(out, "      weight: {passing}");
    }
    if instance.status != Status::Passing {
        let _ = writeln!(out, "      status: {}", instance.status.word());
    }
}

/// A key and its colon. YAML reads a key of more than 1,024 characters only if it is marked as one (1.2.2, section 7.4.2).
fn key(text: &str, before_colon: &str) -> String {
    let key = quoted(text);
    if key.len() <= 1_024 { format!("{key}:") } else { format!("? {key}{before_colon}:") }
}

/// JSON's strings are YAML's double-quoted scalars.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Reading<'s> {
    source: &'s Arc<Source>,
    out: Diagnostics,
}

impl Reading<'_> {
    fn file(&mut self, root: &Node, file: &mut CatalogFile) {
        let Some(mut fields) = Fields::of(root, "a catalog file", self.source, &mut self.out) else { return };
        let Some(services) = fields.take("services") else {
            self.error("E005", root.span, "a catalog file needs `services`");
            return fields.finish(self.source, &mut self.out);
        };
        fields.finish(self.source, &mut self.out);
        let Some(services) = services.map() else {
            return self.error("E002", services.span, format!("`services` must be a map, not {}", services.kind()));
        };
        for (key, value) in services {
            let Some(name) = key.text().filter(|name| !name.is_empty()) else {
                self.error("E006", key.span, "a service needs a name");
                continue;
            };
            let Some(list) = value.list() else {
                self.error("E002", value.span, format!("a service must be a list, not {}", value.kind()));
                continue;
            };
            let name = Text::from(name);
            let instances = self.instances(&name, list);
            file.services.push((name, instances));
        }
    }

    fn instances(&mut self, service: &Text, list: &[Node]) -> Vec<Arc<Instance>> {
        let mut ids: HashMap<Text, Span> = HashMap::new();
        let mut instances = Vec::with_capacity(list.len());
        for node in list {
            let Some(instance) = self.instance(service, node) else { continue };
            if let Some(first) = ids.insert(Text::clone(&instance.id), node.span) {
                let message = format!("two instances of `{service}` have the id `{}`", instance.id);
                let error = Diagnostic::error("E009", self.source, node.span, message);
                self.out.push(error.related(self.source, first, "the other").help("write `node/ID` where two collide"));
                continue;
            }
            instances.push(Arc::new(instance));
        }
        instances
    }

    fn instance(&mut self, service: &Text, node: &Node) -> Option<Instance> {
        let mut fields = Fields::of(node, "an instance", self.source, &mut self.out)?;
        let id = self.required(&mut fields, "id").and_then(|node| self.text(node));
        let address = self.required(&mut fields, "address").and_then(|node| self.address(node));
        let port = self.required(&mut fields, "port").and_then(|node| self.number(node, 1, 65_535));
        let labels = fields.take("labels").map(|node| self.labels(node)).unwrap_or_default();
        let tags = fields.take("tags").map(|node| self.tags(node)).unwrap_or_default();
        let weight = fields.take("weight");
        let weights = fields.take("weights");
        if let (Some(_), Some(both)) = (weight, weights) {
            self.error("E006", both.span, "`weights` stands in place of `weight`; one of them is enough");
        }
        let weights = match (weight, weights) {
            (Some(node), _) => self.number(node, 0, MAX_WEIGHT).map(|n| Weights { passing: n, warning: n }),
            (None, Some(node)) => self.weights(node),
            (None, None) => Some(Weights::default()),
        };
        let status = fields.take("status").map_or(Some(Status::Passing), |node| self.status(node));
        let dc = fields.take("dc").map_or(Some("".into()), |node| self.text(node));
        let at = fields.take("node").map_or(Some("".into()), |node| self.text(node));
        if let Some(meta) = fields.take("node_meta") {
            self.labels(meta);
        }
        fields.finish(self.source, &mut self.out);
        let (id, dc, node) = (id?, dc?, at?);
        let (ip, host): (IpAddr, Text) = address?;
        Some(Instance {
            identity: format!("file/{service}/{dc}/{node}/{id}").into(),
            id,
            service: Text::clone(service),
            addr: SocketAddr::new(ip, port? as u16),
            host,
            node,
            dc,
            labels,
            tags: tags.into(),
            weights: weights?,
            status: status?,
        })
    }

    fn required<'n>(&mut self, fields: &mut Fields<'n>, key: &'static str) -> Option<&'n Node> {
        let found = fields.take(key);
        if found.is_none() {
            self.error("E005", fields.span, format!("an instance needs `{key}`"));
        }
        found
    }

    fn text(&mut self, node: &Node) -> Option<Text> {
        match node.text() {
            Some(text) if !text.is_empty() => Some(text.into()),
            _ => {
                self.error("E002", node.span, format!("must be text, not {}", node.kind()));
                None
            }
        }
    }

    fn address(&mut self, node: &Node) -> Option<(IpAddr, Text)> {
        let text = self.text(node)?;
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
        match bare.parse() {
            Ok(ip) => Some((ip, text)),
            Err(_) => {
                self.error("E006", node.span, format!("`{text}` is not an IP address"));
                None
            }
        }
    }

    fn number(&mut self, node: &Node, least: u32, most: u32) -> Option<u32> {
        let number = node.text().and_then(|text| text.parse().ok()).filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.error("E006", node.span, format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    fn weights(&mut self, node: &Node) -> Option<Weights> {
        let mut fields = Fields::of(node, "`weights`", self.source, &mut self.out)?;
        let mut one = |reading: &mut Self, key| match fields.take(key) {
            Some(node) => reading.number(node, 0, MAX_WEIGHT),
            None => Some(1),
        };
        let weights = one(self, "passing").zip(one(self, "warning"));
        fields.finish(self.source, &mut self.out);
        weights.map(|(passing, warning)| Weights { passing, warning })
    }

    fn status(&mut self, node: &Node) -> Option<Status> {
        let text = node.text().unwrap_or("");
        let found = Status::ALL.into_iter().find(|status| status.word() == text);
        if found.is_none() {
            let words = Status::ALL.map(Status::word);
            let error = Diagnostic::error("E006", self.source, node.span, format!("`{text}` is not a status"));
            self.out.push(match nearest(text, words) {
                Some(near) => error.label(format!("did you mean `{near}`?")),
                None => error.help(format!("there are {}", words.join(", "))),
            });
        }
        found
    }

    /// Scalars keep their spelling; what has none, such as null, is an error.
    fn labels(&mut self, node: &Node) -> Labels {
        let Some(pairs) = node.map() else {
            self.error("E002", node.span, format!("must be a map, not {}", node.kind()));
            return Labels::default();
        };
        let mut labels: Vec<(&str, &str)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            match (key.text(), value.text()) {
                (Some(key), Some(value)) => labels.push((key, value)),
                (None, _) => self.error("E006", key.span, "a label needs a name"),
                (_, None) => {
                    let at = if value.span.start == value.span.end { key.span } else { value.span };
                    self.error("E006", at, format!("a label's value must be a scalar, not {}", value.kind()));
                }
            }
        }
        labels.into_iter().collect()
    }

    fn tags(&mut self, node: &Node) -> Vec<Text> {
        let Some(items) = node.list() else {
            self.error("E002", node.span, format!("`tags` must be a list, not {}", node.kind()));
            return Vec::new();
        };
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.out.push(Diagnostic::error(code, self.source, span, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (CatalogFile, Diagnostics) {
        parse(&Source::new("catalog.yaml", text))
    }

    const WEB: &str = r#"
services:
  web:
    - id: web-1
      address: 127.0.0.1
      port: 9001
      labels: {version: 1.10, env: no, "odd key": "a\"b", empty: ""}
      tags: [http, "v=1"]
      weight: 10
      status: warning
      node: n1
      dc: east
      node_meta: {rack: 7}
    - {id: web-2, address: "::1", port: 9002, weights: {passing: 3, warning: 0}}
  db: []
"#;

    #[test]
    fn a_written_file_is_read_back() {
        let (file, out) = read(WEB);
        assert!(out.0.is_empty(), "{}", out.render());
        assert_eq!(
            file.services.iter().map(|(name, all)| (&**name, all.len())).collect::<Vec<_>>(),
            [("db", 0), ("web", 2)]
        );
        let web = &file.services[1].1[0];
        assert_eq!(web.labels.value("version"), Some("1.10"));
        assert_eq!(web.labels.value("env"), Some("no"));
        assert_eq!((web.weight(), web.status, &*web.dc), (10, Status::Warning, "east"));
        let (again, out) = read(&write(&file));
        assert!(out.0.is_empty(), "{}", out.render());
        let without_host = |file: &CatalogFile| format!("{:?}", file.services);
        assert_eq!(without_host(&again), without_host(&file));
        assert_eq!(read(&write(&CatalogFile::default())).0, CatalogFile::default());
    }

    #[test]
    fn names_of_any_length_are_written_so_that_they_are_read_back() {
        let long = "x\t".repeat(800);
        for text in [
            format!("services:\n  ? \"{long}\"\n  : []\n").replace('\t', "\\t"),
            format!(
                "services: {{web: [{{id: a, address: 10.0.0.1, port: 1, labels: {{? \"{long}\" : \"{long}\"}}}}]}}\n"
            )
            .replace('\t', "\\t"),
        ] {
            let (file, out) = read(&text);
            assert!(out.0.is_empty(), "{}", out.render());
            let written = write(&file);
            let (again, out) = read(&written);
            assert!(out.0.is_empty(), "{}", out.render());
            assert_eq!(again, file);
        }
    }

    #[test]
    fn json_is_read_too() {
        let (file, out) = read(
            "{\"services\": {\n\t\"web\": [{\"id\": \"a\", \"address\": \"10.0.0.1\", \"port\": 80, \"labels\": {\"v\": 1.0}}]\n}}",
        );
        assert!(out.0.is_empty(), "{}", out.render());
        assert_eq!(file.services[0].1[0].labels.value("v"), Some("1.0"));
    }

    #[test]
    fn every_problem_is_reported_at_its_place() {
        let text = "services:\n  web:\n    - {id: a, address: nowhere, port: 0, lables: {}}\n    - {id: b, address: 1.1.1.1, port: 1, labels: {v: ~}, status: passin}\n    - {address: 1.1.1.1, port: 1, weight: 70000}\n  db:\n";
        let (_, out) = read(text);
        let found: Vec<(&str, usize)> =
            out.0.iter().map(|error| (error.code, out.0[0].source.position(error.span.start).0)).collect();
        assert_eq!(
            found,
            [("E006", 3), ("E006", 3), ("E001", 3), ("E006", 4), ("E006", 4), ("E005", 5), ("E006", 5), ("E002", 6)],
            "{}",
            out.render()
        );
        assert!(out.render().contains("did you mean `passing`?") && out.render().contains("did you mean `labels`?"));
    }

    #[test]
    fn an_id_twice_is_an_error() {
        let (_, out) = read(
            "services:\n  web:\n    - {id: a, address: 1.1.1.1, port: 1}\n    - {id: a, address: 1.1.1.2, port: 1}\n",
        );
        assert_eq!(out.0.iter().map(|error| error.code).collect::<Vec<_>>(), ["E009"]);
    }
}
