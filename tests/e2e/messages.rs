//! What rules change in messages: header edits in both directions, the path and the Host.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Act, Proxy, Scripted, Setup, ok, status};

const EDITS: &str = "\
service: web
paths: [/shop, /]
pools: {all: id exists}
headers:
  request:
    remove: [x-debug]
    set: {x-site: eu, x-from: '{client.ip}', x-user: 'u-{header.x-user-id}/{query.v}', x-braces: '{{x}}'}
    add: {x-tag: [a, b]}
  response:
    remove: [x-powered-by]
    set: {cache-control: no-store, x-asked: '{path}'}
    add: {x-served-by: pointsman}
rules:
  - {name: moved, when: path under '/old', redirect: /new}
  - {name: bare, when: path under '/bare', to: all, headers: {request: {set: {x-only: rule}}}}
  - {name: all, to: all}
";

async fn proxy_with(rules: &str, instance: &Scripted) -> Proxy {
    Setup::to(&[instance.address]).rules(rules).start().await
}

#[tokio::test]
async fn headers_are_edited_towards_the_instance_and_the_client() {
    let answer = b"HTTP/1.1 200 OK\r\nx-powered-by: php\r\ncache-control: public\r\ncontent-length: 0\r\n\r\n";
    let instance = Scripted::http(|_| Act::Write(answer.to_vec())).await;
    let proxy = proxy_with(EDITS, &instance).await;
    let reply = proxy
        .ask(
            "GET /a/../shop?v=7%0d%0ax HTTP/1.1\r\nhost: shop\r\nx-debug: 1\r\nx-site: us\r\nx-site: asia\r\nx-tag: 0\r\n\
             x-user: forged\r\n\r\n",
        )
        .await;
    let seen = &instance.requests()[0];
    let field = |name| seen.field(name);
    assert_eq!((field("x-debug"), field("x-site").as_deref()), (None, Some("eu")));
    assert_eq!(field("x-from").as_deref(), Some("127.0.0.1"));
    assert_eq!(field("x-user"), None, "a value that cannot stand in a header takes the client's away too");
    assert_eq!(field("x-braces").as_deref(), Some("{x}"));
    assert_eq!(field("x-tag").as_deref(), Some("0, a, b"));
    assert_eq!(seen.line(), "GET /a/../shop?v=7%0d%0ax HTTP/1.1", "without `rewrite` the target is the client's");
    assert_eq!((reply.field("x-powered-by"), reply.field("cache-control").as_deref()), (None, Some("no-store")));
    assert_eq!(reply.field("x-served-by").as_deref(), Some("pointsman"));
    assert_eq!(reply.field("x-asked").as_deref(), Some("/shop"));

    proxy.ask("GET /?v=2 HTTP/1.1\r\nhost: shop\r\nx-user-id: 9\r\n\r\n").await;
    assert_eq!(instance.requests()[1].field("x-user").as_deref(), Some("u-9/2"));
}

#[tokio::test]
async fn a_rules_edits_replace_the_files_and_its_own_answers_are_edited_too() {
    let instance = Scripted::echo().await;
    let proxy = proxy_with(EDITS, &instance).await;
    let reply = proxy.get("/bare").await;
    let seen = &instance.requests()[0];
    assert_eq!((seen.field("x-only").as_deref(), seen.field("x-site")), (Some("rule"), None));
    assert_eq!(reply.field("x-served-by"), None);
    let reply = proxy.get("/old/x").await;
    assert_eq!((reply.status, reply.field("x-served-by").as_deref()), (302, Some("pointsman")));
}

const REWRITES: &str = "\
service: web
paths: [/shop, /]
pools: {all: id exists}
rewrite: {path: /inner/, host: 'inner.example.com:8080'}
rules:
  - {name: v1, when: path under '/shop/v1' and method == GET, to: all, rewrite: {path: /}}
  - {name: all, to: all}
";

#[tokio::test]
async fn the_path_and_the_host_are_rewritten_and_the_query_is_kept() {
    let instance = Scripted::echo().await;
    let setup = Setup::to(&[instance.address]).rules(REWRITES).settings(|s| s.host_of_instance = true);
    let proxy = setup.start().await;
    for (asked, got) in [
        ("/shop/cart?a=%2F&b", "GET /inner/cart?a=%2F&b HTTP/1.1 "),
        ("/shop", "GET /inner/ HTTP/1.1 "),
        ("/x/../shop/./y%7e?", "GET /inner/y~? HTTP/1.1 "),
        ("/other", "GET /inner/other HTTP/1.1 "),
        ("/shop/v1/items/7?x", "GET /items/7?x HTTP/1.1 "),
        ("/shop/v1", "GET / HTTP/1.1 "),
    ] {
        assert_eq!(String::from_utf8_lossy(&proxy.get(asked).await.body), got, "{asked}");
    }
    let seen = instance.requests();
    assert_eq!(seen[0].field("host").as_deref(), Some("inner.example.com:8080"));
    assert_eq!(seen[0].field("x-forwarded-host").as_deref(), Some("shop"));
    assert!(seen[4].field("host").unwrap().starts_with("127.0.0.1:"), "the rule's `rewrite` has no host");
}

#[tokio::test]
async fn a_retry_is_sent_edited() {
    let count = AtomicUsize::new(0);
    let manner = move |_: &_| if count.fetch_add(1, Ordering::SeqCst) == 0 { status(503) } else { ok("") };
    let instance = Scripted::http(manner).await;
    let rules = format!("{REWRITES}headers: {{request: {{set: {{x-site: eu}}}}}}\n");
    let setup = Setup::to(&[instance.address, instance.address]);
    let proxy = setup.rules(&rules).start().await;
    assert_eq!(proxy.get("/shop/1").await.status, 200);
    let seen = instance.requests();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!((request.line(), request.field("x-site").as_deref()), ("GET /inner/1 HTTP/1.1", Some("eu")));
    }
}

/// Lanes that only peers of `trusted` may ask for.
fn lanes(trusted: &str) -> String {
    format!(
        "service: web\ntrusted: [{trusted}]\npools: {{all: id exists}}\n\
         labels: {{lane: [header.x-lane, cookie.lane, query.lane, base], team: [header.x-team]}}\n\
         propagate:\n  - {{label: lane, header: x-lane, baggage: lane}}\n  - {{label: team, baggage: team}}\n\
         rules:\n  - {{name: all, to: all, headers: {{request: {{set: {{x-seen: 'lane {{label.lane}}'}}}}}}}}\n"
    )
    .replace(", base]", ", \"base\"]")
}

const LANE_REQUEST: &str = "GET / HTTP/1.1\r\nhost: shop\r\nx-lane: blue 1\r\nx-lane: second\r\ncookie: a=1; lane=red; b=2\r\n\
                            baggage: user=7;p=1, lane=forged;q, team=x\r\nbaggage: lane=again\r\nbaggage: z=9\r\n\r\n";

#[tokio::test]
async fn a_trusted_peers_label_goes_to_the_instance_as_header_and_baggage() {
    let instance = Scripted::echo().await;
    let proxy = proxy_with(&lanes("127.0.0.0/8"), &instance).await;
    proxy.ask(LANE_REQUEST).await;
    let seen = &instance.requests()[0];
    assert_eq!(seen.field("x-lane").as_deref(), Some("blue 1, second"));
    assert_eq!(seen.field("baggage").as_deref(), Some("user=7;p=1,team=x,lane=blue%201%2C%20second, z=9"));
    assert_eq!(seen.field("cookie").as_deref(), Some("a=1; lane=red; b=2"));
    assert_eq!(seen.field("x-seen").as_deref(), Some("lane blue 1, second"));

    proxy.get("/?lane=a%0ab").await;
    let seen = &instance.requests()[1];
    assert_eq!((seen.field("x-lane"), seen.field("baggage").as_deref()), (None, Some("lane=a%0Ab")));
}

#[tokio::test]
async fn a_stranger_cannot_say_what_labels_are_read_from_or_carried_in() {
    let instance = Scripted::echo().await;
    let proxy = proxy_with(&lanes("10.0.0.0/8"), &instance).await;
    proxy.ask(LANE_REQUEST).await;
    let seen = &instance.requests()[0];
    assert_eq!(seen.field("x-lane").as_deref(), Some("base"));
    assert_eq!(seen.field("baggage").as_deref(), Some("user=7;p=1,lane=base, z=9"), "both of its members are gone");
    assert_eq!(seen.field("cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(seen.field("x-seen").as_deref(), Some("lane base"));
}
