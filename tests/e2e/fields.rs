//! Fields that a proxy takes away, adds and replaces.

use pointsman::server::Listen;

use crate::harness::{ANY, Act, Proxy, Scripted, Seen, Setup, ok};

async fn seen_by_instance(setup: impl FnOnce(Setup) -> Setup, request: &str) -> Seen {
    let instance = Scripted::echo().await;
    let proxy = setup(Setup::to(&[instance.address])).start().await;
    let reply = proxy.ask(request).await;
    assert_eq!(reply.status, 200, "{}", reply.head);
    instance.requests()[0].clone()
}

#[tokio::test]
async fn what_concerns_one_connection_is_not_passed_on() {
    let request = "GET /a?b=c HTTP/1.1\r\nhost: shop\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: 5\r\n\
        proxy-connection: keep-alive\r\nte: gzip, trailers\r\nupgrade: h2c\r\nx_under: 1\r\nx-kept: 1\r\n\r\n";
    let seen = seen_by_instance(|setup| setup, request).await;
    assert_eq!(seen.line(), "GET /a?b=c HTTP/1.1");
    for gone in ["connection", "x-hop", "keep-alive", "proxy-connection", "upgrade", "x_under"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("te").as_deref(), Some("trailers"));
    assert_eq!(seen.field("x-kept").as_deref(), Some("1"));
    assert_eq!(seen.field("host").as_deref(), Some("shop"));
}

#[tokio::test]
async fn a_client_cannot_have_the_framing_taken_away() {
    let request = "POST / HTTP/1.1\r\nhost: shop\r\nconnection: host, content-length\r\ncontent-length: 2\r\n\r\nhi";
    let seen = seen_by_instance(|setup| setup, request).await;
    assert_eq!((seen.field("host").as_deref(), seen.body.as_slice()), (Some("shop"), &b"hi"[..]));
}

#[tokio::test]
async fn who_asked_is_told_by_us_unless_a_trusted_proxy_says() {
    let request = "GET / HTTP/1.1\r\nhost: shop:80\r\nx-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\n\
        x-forwarded-host: evil\r\nx-forwarded-port: 1\r\nforwarded: for=9.9.9.9\r\n\r\n";
    let seen = seen_by_instance(|setup| setup, request).await;
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("shop:80"));
    assert_eq!((seen.field("forwarded"), seen.field("x-forwarded-port")), (None, None));

    let trust = |setup: Setup| setup.settings(|s| s.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    let seen = seen_by_instance(trust, request).await;
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("9.9.9.9, 127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("evil"));
    assert_eq!(seen.field("forwarded").as_deref(), Some("for=9.9.9.9"));

    let ours = |setup: Setup| trust(setup).settings(|s| s.forwarded = true);
    let seen = seen_by_instance(ours, request).await;
    let chain = "for=9.9.9.9, for=127.0.0.1;host=\"shop:80\";proto=http";
    assert_eq!(seen.field("forwarded").as_deref(), Some(chain));
    let strangers = |setup: Setup| setup.settings(|s| s.forwarded = true);
    let seen = seen_by_instance(strangers, request).await;
    assert_eq!(seen.field("forwarded").as_deref(), Some("for=127.0.0.1;host=\"shop:80\";proto=http"));
}

#[tokio::test]
async fn the_rules_see_the_client_that_a_trusted_proxy_names() {
    let rules = "service: web\npools: {all: id exists}\nrules:\n  - name: theirs\n    when: client.ip == 203.0.113.9\n    \
        respond: {status: 202}\n  - name: all\n    to: [all]\n";
    let behind = Scripted::echo().await;
    for (trusted, expected) in [(true, 202), (false, 200)] {
        let setup = Setup::to(&[behind.address]).rules(rules);
        let nets = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let proxy = setup.settings(|settings| settings.trusted_proxies = nets).start().await;
        let reply = proxy.ask("GET / HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 203.0.113.9\r\n\r\n").await;
        assert_eq!(reply.status, expected);
    }
}

#[tokio::test]
async fn what_stands_within_quotes_of_forwarded_names_nobody() {
    let rules = "service: web\npools: {all: id exists}\nrules:\n  - name: theirs\n    when: client.ip == 203.0.113.9\n    \
        respond: {status: 202}\n  - name: all\n    to: [all]\n";
    let behind = Scripted::echo().await;
    let setup = Setup::to(&[behind.address]).rules(rules);
    let proxy =
        setup.settings(|settings| settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).start().await;
    for (forwarded, expected) in [
        ("for=203.0.113.9", 202),
        ("host=\"x;for=203.0.113.9\"", 200),
        ("host=\"x, for=203.0.113.9\"", 200),
        ("host=\"x\\\"\";for=203.0.113.9", 202),
        ("for=203.0.113.9;host=\"never closed", 200),
    ] {
        let reply = proxy.ask(&format!("GET / HTTP/1.1\r\nhost: shop\r\nforwarded: {forwarded}\r\n\r\n")).await;
        assert_eq!(reply.status, expected, "{forwarded}");
    }
}

#[tokio::test]
async fn the_scheme_is_what_a_trusted_proxy_says_for_rules_cookies_redirects_and_instances() {
    let rules = "service: web\npools: {all: id exists}\nrules:\n  - name: plain\n    when: scheme == http\n    redirect: \
        {status: 308, location: \"https://shop/\"}\n  - name: all\n    split: [{to: [all], share: 100%}]\n    key: \
        [cookie.uid]\n";
    let behind = Scripted::echo().await;
    for trusted in [true, false] {
        let mut listen = vec![Listen::plain(ANY), Listen::plain(ANY)];
        listen[1].entrance.redirect = Some(443);
        let nets = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let setup = Setup::to(&[behind.address]).rules(rules).listen(listen);
        let proxy = setup.settings(|settings| settings.trusted_proxies = nets).start().await;
        for (field, told) in [
            ("x-forwarded-proto: https", Some("https")),
            ("forwarded: for=203.0.113.9;proto=https", Some("https")),
            ("x-forwarded-proto: http", None),
            ("x-forwarded-proto: wss", None),
            ("x-forwarded-proto: https, http", None),
            ("x-other: https", None),
        ] {
            let told = told.filter(|_| trusted);
            for at in 0..2 {
                let mut client = crate::harness::Client::connect(proxy.addresses[at]).await;
                client.send(format!("GET /x HTTP/1.1\r\nhost: shop\r\n{field}\r\n\r\n")).await;
                let reply = client.reply().await;
                assert_eq!(reply.status, if told.is_some() { 200 } else { 308 }, "{trusted} {field} {at}");
                let secure = reply.field("set-cookie").is_some_and(|cookie| cookie.contains("; Secure"));
                assert_eq!(secure, told.is_some(), "{field}: {}", reply.head);
                if told.is_some() {
                    let seen = behind.requests().pop().unwrap();
                    assert_eq!(seen.field("x-forwarded-proto").as_deref(), told, "{field}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let seen = seen_by_instance(|setup| setup, "GET / HTTP/1.1\r\nhost: shop\r\nx-request-id: mine\r\n\r\n").await;
    assert_eq!(seen.field("x-request-id").as_deref(), Some("mine"));
    let seen = seen_by_instance(|setup| setup, "GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let made = seen.field("x-request-id").unwrap();
    assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
    assert_eq!(seen.field("via"), None);
}

#[tokio::test]
async fn settings_add_via_and_the_instances_own_host() {
    let change = |setup: Setup| {
        setup.settings(|s| {
            s.via = true;
            s.host_of_instance = true;
            s.underscores = true;
        })
    };
    let seen = seen_by_instance(change, "GET / HTTP/1.1\r\nhost: shop\r\nx_under: 1\r\n\r\n").await;
    assert_eq!(seen.field("via").as_deref(), Some("1.1 pointsman"));
    assert!(seen.field("host").unwrap().starts_with("127.0.0.1:"));
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("shop"));
    assert_eq!(seen.field("x_under").as_deref(), Some("1"));
}

#[tokio::test]
async fn an_absolute_target_reaches_the_instance_in_origin_form() {
    let seen = seen_by_instance(|setup| setup, "GET http://shop/x?y HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert_eq!(seen.line(), "GET /x?y HTTP/1.1");
}

#[tokio::test]
async fn an_instances_connection_fields_stay_with_it() {
    let instance = Scripted::http(|_| {
        Act::Write(
            b"HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
              set-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    let proxy = Proxy::to(&[instance.address]).await;
    let reply = proxy.get("/").await;
    for gone in ["connection", "x-hop", "keep-alive", "proxy-authenticate", "x-pointsman-instance"] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
    assert_eq!(reply.field("set-cookie").as_deref(), Some("a=1, b=2"));
}

#[tokio::test]
async fn debug_fields_tell_how_the_answer_came_about() {
    let instance = Scripted::http(|_| ok("")).await;
    let proxy = Setup::to(&[instance.address]).settings(|s| s.debug_headers = true).start().await;
    let reply = proxy.get("/").await;
    assert_eq!(reply.field("x-pointsman-rule").as_deref(), Some("all"));
    assert_eq!(reply.field("x-pointsman-pool").as_deref(), Some("all"));
    assert_eq!(reply.field("x-pointsman-level").as_deref(), Some("0"));
    assert_eq!(reply.field("x-pointsman-instance").as_deref(), Some("web-0"));
    assert_eq!(reply.field("x-pointsman-draw").unwrap().len(), 16);
}

#[tokio::test]
async fn a_minted_cookie_comes_once_and_never_reaches_the_instance() {
    let rules = "service: web\npools: {all: id exists}\nrules:\n  - name: ramp\n    split: {all: 100%}\n    \
                 key: [cookie.uid]\n";
    let instance = Scripted::echo().await;
    let proxy = Setup::to(&[instance.address]).rules(rules).start().await;
    let minted = proxy.get("/").await.field("set-cookie").expect("a cookie");
    assert!(minted.starts_with("pointsman-web=0."), "{minted}");
    let pair = minted.split(';').next().unwrap();
    let again = proxy.ask(&format!("GET / HTTP/1.1\r\nhost: shop\r\ncookie: a=1; {pair}\r\n\r\n")).await;
    assert_eq!((again.status, again.field("set-cookie")), (200, None));
    assert_eq!(instance.requests()[1].field("cookie").as_deref(), Some("a=1"));
}

#[tokio::test]
async fn rules_redirect_and_respond_themselves() {
    let rules = "service: web\npools: {all: id exists}\nrules:\n  - name: moved\n    when: path == \"/old\"\n    \
                 redirect: {status: 308, location: \"https://new.example/\"}\n  - name: text\n    respond: {status: 200, \
                 body: hello}\n";
    let proxy = Setup::default().rules(rules).start().await;
    let moved = proxy.get("/old").await;
    assert_eq!((moved.status, moved.field("location").as_deref()), (308, Some("https://new.example/")));
    assert_eq!(proxy.get("/").await.text(), "hello");
}

#[tokio::test]
async fn our_own_errors_say_why() {
    let proxy = Setup::default().start().await;
    let reply = proxy.ask("GET / HTTP/1.1\r\nhost: shop\r\naccept: application/json\r\n\r\n").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.field("x-pointsman-error").as_deref(), Some("no_routable_instance"));
    assert_eq!(reply.field("content-type").as_deref(), Some("application/problem+json"));
    assert!(reply.field("retry-after").is_some() && reply.text().contains("\"status\":503"));
    let plain = proxy.get("/").await;
    assert_eq!(plain.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
}
