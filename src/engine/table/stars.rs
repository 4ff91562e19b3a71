//! `service: "*"` over a catalog that changes.

use std::sync::Arc;

use super::*;
use crate::engine::diagnostic::Source;
use crate::engine::rules::parse_files;
use crate::engine::snapshot::LiveSet;

const STAR: &str =
    "service: '*'\nhosts: ['{service}.internal']\npools: {live: id exists}\nrules: [{name: all, to: live}]\n";
const NAMED: &str = "service: named\nhosts: [named.example.com, taken.internal]\npools: {live: id exists}\n\
                     rules: [{name: all, to: live}]\n";

fn service(name: &str, lives: &mut LiveSet) -> Arc<ServiceSnapshot> {
    ServiceSnapshot::build(name.into(), 1, Vec::new(), lives, Millis(0))
}

fn claimed(table: &Table, host: &str) -> Option<String> {
    table.router.file(host, "/").map(|file| table.router.files[file as usize].service.to_string())
}

#[test]
fn services_that_no_file_names_come_and_go_and_only_they_cost() {
    let (set, out) = parse_files(&[Source::new("all.yaml", STAR), Source::new("named.yaml", NAMED)]);
    assert!(!out.has_errors(), "{}", out.render());
    let router = Arc::new(Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render())));
    let mut lives = LiveSet::default();
    let first = Snapshot::new(["consul", "named", "orders", "taken"].map(|name| service(name, &mut lives)));
    let table = Table::build(1, first, router, Place::default(), Millis(0)).expect("a table");
    assert_eq!(claimed(&table, "orders.internal").as_deref(), Some("orders"));
    assert_eq!(claimed(&table, "named.example.com").as_deref(), Some("named"));
    assert_eq!(claimed(&table, "taken.internal").as_deref(), Some("named"), "a file that names the host goes first");
    for nobody in ["named.internal", "consul.internal", "{service}.internal", "users.internal"] {
        assert_eq!(claimed(&table, nobody), None, "{nobody}");
    }

    let (same, errors) = table.with_service(2, service("orders", &mut lives), Millis(1));
    assert!(errors.is_empty() && Arc::ptr_eq(&same.router, &table.router), "no service came or went");

    let (more, errors) = table.with_service(3, service("Users", &mut lives), Millis(2));
    assert!(errors.is_empty());
    assert_eq!(claimed(&more, "users.internal").as_deref(), Some("Users"));
    assert_eq!(more.files.len(), more.router.files.len());
    for (file, pools) in table.router.files.iter().zip(&table.files) {
        let at = more.router.files.iter().position(|other| Arc::ptr_eq(other, file)).expect("shared");
        assert!(Arc::ptr_eq(&more.files[at], pools), "{}", file.service);
    }

    let less = more.without_service(4, &"orders".into(), Millis(3));
    assert_eq!(claimed(&less, "orders.internal"), None);
    assert_eq!(claimed(&less, "users.internal").as_deref(), Some("Users"));
    assert_eq!(less.router.written().len(), 2);
}

#[test]
fn the_place_of_the_name_is_asked_for_and_refused_elsewhere() {
    for (rules, what) in [
        ("service: '*'\nhosts: [fixed.internal]\n", "every service would claim this host"),
        ("service: '*'\n", "needs `hosts` that name the service"),
        ("service: web\nhosts: ['{service}.internal']\n", "has a meaning only in a file with"),
    ] {
        let (_, out) = parse_files(&[Source::new("all.yaml", rules)]);
        assert!(out.render().contains(what), "{}", out.render());
    }
}
