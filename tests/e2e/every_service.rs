//! `service: "*"`: services that no file names are served while the catalog has them.

use std::net::SocketAddr;
use std::sync::Arc;

use pointsman::engine::diagnostic::Source;
use pointsman::engine::locality::Place;
use pointsman::engine::route::Router;
use pointsman::engine::rules;
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use pointsman::engine::table::Table;
use pointsman::engine::time::Millis;

use crate::harness::{Proxy, Scripted, instance, ok};

const STAR: &str = "service: '*'\nhosts: ['{service}.internal']\npools: {live: id exists}\n\
                    headers: {response: {set: {x-rules: shared}}}\nrules: [{name: all, to: live}]\n";

fn service(name: &str, address: SocketAddr, lives: &mut LiveSet) -> Arc<ServiceSnapshot> {
    let mut one = instance(&format!("{name}-1"), address, &[]);
    one.service = name.into();
    ServiceSnapshot::build(name.into(), 1, vec![Arc::new(one)], lives, Millis(0))
}

fn share(table: &Table) -> Table {
    table.with_time(table.generation, Millis(0))
}

#[tokio::test]
async fn a_service_is_served_from_when_it_comes_until_it_goes_and_the_others_keep_their_counts() {
    let (orders, users) = (Scripted::http(|_| ok("orders")).await, Scripted::http(|_| ok("users")).await);
    let (set, found) = rules::parse_files(&[Source::new("all.yaml", STAR)]);
    assert!(!found.has_errors(), "{}", found.render());
    let router = Router::compile(&set).unwrap_or_else(|found| panic!("{}", found.render()));
    let mut lives = LiveSet::default();
    // It comes after the others by name, so that a newcomer moves its place.
    let first = Snapshot::new([service("orders", orders.address, &mut lives)]);
    let table = Table::build(2, first, Arc::new(router), Place::default(), Millis(0)).unwrap();
    let proxy = Proxy::to(&[]).await;
    proxy.publish_table(share(&table));
    let mut client = proxy.client().await;
    let mut ask = async |host: &str| {
        client.send(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let reply = client.reply().await;
        (reply.status, reply.text().to_owned(), reply.field("x-rules").is_some())
    };
    assert_eq!(ask("orders.internal").await, (200, "orders".to_owned(), true));
    assert_eq!(ask("accounts.internal").await.0, 404);

    let (more, errors) = table.with_service(3, service("accounts", users.address, &mut lives), Millis(1));
    assert!(errors.is_empty(), "{errors:?}");
    proxy.publish_table(share(&more));
    assert_eq!(ask("accounts.internal").await, (200, "users".to_owned(), true));
    assert_eq!(ask("orders.internal").await, (200, "orders".to_owned(), true));

    proxy.publish_table(more.without_service(4, &"accounts".into(), Millis(2)));
    assert_eq!(ask("accounts.internal").await.0, 404);
    assert_eq!(ask("ORDERS.internal:8080").await.0, 200);
    for (service, count) in [("orders", " 3"), ("accounts", " 1")] {
        let page = proxy.metrics.render();
        let start = format!("pointsman_requests_total{{service=\"{service}\",rule=\"all\",pool=\"live\"");
        let line = page.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{page}"));
        assert!(line.ends_with(count), "{line}");
    }
}
