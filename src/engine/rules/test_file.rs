//! Tests in a file of their own: `rules:` says which rules they are for, `tests:` is as beside the rules.

use std::sync::Arc;

use super::cases;
use super::file::Names;
use super::read::Reader;
use super::ruleset::{RuleSet, TestCase};
use crate::engine::diagnostic::{Diagnostics, Source, Spanned};
use crate::engine::label::Text;
use crate::engine::yaml::{self, Node};

/// A file of tests.
#[derive(Clone, Debug)]
pub struct TestFile {
    /// Name and text.
    pub source: Arc<Source>,
    /// Rule files and folders, as written: from where this file is.
    pub rules: Vec<Spanned<Text>>,
    root: Node,
}

impl TestFile {
    /// The file, if it is one: it has `tests`, no `service`, and `rules` is a path or a list of them.
    #[must_use]
    pub fn of(source: &Arc<Source>) -> Option<Self> {
        let root = yaml::parse(source, &mut Diagnostics::default())?;
        let value = |key: &str| root.map()?.iter().find(|(k, _)| k.text() == Some(key)).map(|(_, value)| value);
        let (None, Some(_), Some(rules)) = (value("service"), value("tests"), value("rules")) else { return None };
        let paths = rules.list().unwrap_or(std::slice::from_ref(rules)).iter();
        let rules: Option<Vec<_>> = paths.map(|node| Some(Spanned::new(node.text()?.into(), node.span))).collect();
        Some(Self { source: Arc::clone(source), rules: rules?, root })
    }

    /// The cases in written order. They may name every rule and pool of `set`. Problems go to `out`.
    pub fn cases(&self, set: &RuleSet, out: &mut Diagnostics) -> Vec<TestCase> {
        let files = || set.files.iter();
        let rules: Vec<Text> = files().flat_map(|file| &file.rules).map(|rule| Text::clone(&rule.name.value)).collect();
        let pools = files().flat_map(|file| &file.pools).map(|pool| Text::clone(&pool.name.value)).collect();
        let names = Names { pools, labels: Vec::new() };
        // Repeated keys and the like; what cannot be parsed at all is no test file.
        yaml::parse(&self.source, out);
        let mut reader = Reader { source: &self.source, out };
        let r = &mut reader;
        let Some(mut fields) = r.fields(&self.root, "a test file") else { return Vec::new() };
        fields.take("rules");
        let found = fields.take("tests").map_or_else(Vec::new, |node| cases::cases(r, node, &rules, &names));
        r.close(fields);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rules::parse_files;

    #[test]
    fn a_file_of_tests_names_its_rules_and_is_read_strictly() {
        let web = Source::new("web.yaml", "service: web\npools: {a: id exists}\nrules: [{name: all, to: a}]\n");
        let (set, _) = parse_files(&[web]);
        let text = "rules: web.yaml\ntests:\n  - {request: GET /, expect: {rule: al}}\n  - {request: GET /, down: a, expect: {pool: any, labels: {v: 1}}}\nextra: 1\n";
        let file = TestFile::of(&Source::new("t.yaml", text)).expect("it is one");
        assert_eq!(&*file.rules[0].value, "web.yaml");
        let mut out = Diagnostics::default();
        let cases = file.cases(&set, &mut out);
        assert_eq!(cases.len(), 2);
        assert_eq!((&*cases[1].down[0].value, &*cases[1].expect.labels[0].1.value), ("a", "1"));
        assert_eq!(out.0.iter().map(|found| found.code).collect::<Vec<_>>(), ["E031", "E001"], "{}", out.render());
    }

    #[test]
    fn a_rule_file_is_none() {
        for text in
            ["service: web\nrules: []\ntests: []\n", "rules: [{name: a, to: b}]\ntests: []\n", "tests: []\n", "["]
        {
            assert!(TestFile::of(&Source::new("t.yaml", text)).is_none(), "{text}");
        }
    }
}
