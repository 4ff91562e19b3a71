//! What was matched is what the instance sees: paths and hosts, in every spelling.

use pointsman::engine::paths::Spellings;
use pointsman::forward::Settings;

use super::recorder::Recorder;
use crate::harness::{Proxy, Reply, Setup};

/// `/admin` is for nobody.
const RULES: &str = "service: web\nhosts: [shop, \"*.shop\"]\npools: {all: id exists}\nheaders: {request: {set: {x-matched: \
                     \"{path}\", x-for: \"{host}\"}}}\nrules:\n  - {name: admin, when: path under \"/admin\", respond: \
                     {status: 403, body: no}}\n  - {name: all, to: [all]}\n";

async fn ground(change: impl FnOnce(&mut Settings)) -> (Recorder, Proxy) {
    let instance = Recorder::start().await;
    let proxy = Setup::to(&[instance.address]).rules(RULES).settings(change).start().await;
    (instance, proxy)
}

async fn ask(proxy: &Proxy, target: &str, host: &str) -> Reply {
    proxy.ask(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await
}

/// The path that a server finds: decoded once, slashes merged, dots followed.
fn served(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(value) => (bytes.push(value), rest = &tail[2..]).1,
            None => (bytes.push(byte), rest = tail).1,
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut out: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(out.pop()),
            _ => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

/// Spellings of `/admin/x`, and what they are by default.
const SPELLINGS: &[(&str, u16)] = &[
    ("/admin/x", 403),
    ("//admin/x", 403),
    ("/./admin/x", 403),
    ("/a/../admin/x", 403),
    ("/a/%2e%2e/admin/x", 403),
    ("/a/%2E./admin/x", 403),
    ("/%61dmin/x", 403),
    ("/%61%64%6d%69%6E/x", 403),
    ("/admin//x", 403),
    ("/a/b/..//../admin/x", 403),
    ("http://shop/admin/x", 403),
    ("http://shop//a/..//admin/x", 403),
    ("/a%2f..%2fadmin/x", 400),
    ("/a/..%2fadmin/x", 400),
    ("/a\\..\\admin/x", 400),
    ("/a/..%5cadmin/x", 400),
    ("/a/..;/admin/x", 400),
    ("/a/..;x=y/admin/x", 400),
    ("/admin%00/x", 400),
    ("/%zz/../admin/x", 400),
    ("/admin%/x", 400),
    ("/Admin/x", 200),
    ("/admin%20/x", 200),
    ("/%2561dmin/x", 200),
    ("/admins/x", 200),
    ("/a/..admin/x", 200),
    ("/x?/../admin", 200),
    ("/x#/../admin", 200),
    ("/caf\u{e9}", 200),
];

#[tokio::test]
async fn no_spelling_of_a_path_slips_past_a_rule() {
    let (instance, proxy) = ground(|_| {}).await;
    for (target, status) in SPELLINGS {
        let reply = ask(&proxy, target, "shop").await;
        assert_eq!(reply.status, *status, "{target}: {}", reply.head);
        if *status == 400 {
            assert_eq!(reply.field("x-pointsman-error").as_deref(), Some("path_refused"), "{target}");
            let counted = proxy.metric("pointsman_errors_total{service=\"\",detail=\"path_refused\"} ");
            assert!(counted.is_some(), "{target}: not counted");
        }
    }
    for message in instance.messages("spellings") {
        let matched = message.one("x-matched").unwrap();
        assert_eq!(served(message.path()), served(&matched), "{message:?}");
        assert!(!served(message.path()).starts_with("/admin/"), "{message:?}");
        let sent = SPELLINGS.iter().any(|(target, _)| target.split(['?', '#']).next() == Some(message.path()));
        assert!(sent, "what is forwarded is what was sent: {message:?}");
    }
}

/// The segments that a server finds which cuts parameters off, before it decodes or behind it.
fn served_without_parameters(path: &str, decoded_first: bool) -> String {
    let path = if decoded_first { path.replace("%3b", ";").replace("%3B", ";") } else { path.to_owned() };
    let cut: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect();
    served(&cut.join("/"))
}

/// Spellings of `/admin/x` to servers that cut parameters, and what they are by default.
const PARAMETERS: &[(&str, u16)] = &[
    ("/admin;x/x", 200),
    ("/admin;x=1;y=2/x", 200),
    ("/;a/admin/x", 200),
    ("/;/admin/x", 200),
    ("/a/;/../admin/x", 200),
    ("/admin%3bx/x", 200),
    ("/%61dmin%3Bx/x", 200),
    ("/;%61/admin/x", 200),
    ("http://shop/admin;x/x", 200),
    ("/a/..;/admin/x", 400),
    ("/a/..;b=c/admin/x", 400),
    ("/.;/admin/x", 400),
    ("/a/..%3B/admin/x", 400),
    ("/a/%2e%2e;/admin/x", 400),
    ("/a/.%2e%3bx/admin/x", 400),
];

#[tokio::test]
async fn parameters_slip_past_no_rule_where_they_are_refused() {
    let (instance, proxy) =
        ground(|settings| settings.paths.refuse = settings.paths.refuse.and(Spellings::PARAMETER)).await;
    for (target, _) in PARAMETERS {
        let path = target.trim_start_matches("http://shop");
        let served = [false, true].map(|decoded_first| served_without_parameters(path, decoded_first));
        assert!(served.contains(&"/admin/x".to_owned()), "{target} is an attack: {served:?}");
        let reply = ask(&proxy, target, "shop").await;
        assert_eq!(
            (reply.status, reply.field("x-pointsman-error").as_deref()),
            (400, Some("path_refused")),
            "{target}"
        );
    }
    assert_eq!(instance.messages("refused").len(), 0, "no instance hears of them");
    for target in ["/x?a=1;b=2", "/x?/admin;x", "/a%253bx"] {
        assert_eq!(ask(&proxy, target, "shop").await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn dot_segments_with_parameters_are_refused_by_default_and_other_parameters_are_not() {
    let (instance, proxy) = ground(|_| {}).await;
    for (target, status) in PARAMETERS {
        assert_eq!(ask(&proxy, target, "shop").await.status, *status, "{target}");
    }
    let passed = PARAMETERS.iter().filter(|(_, status)| *status == 200).count();
    assert_eq!(instance.messages("parameters").len(), passed);
}

#[tokio::test]
async fn instances_get_the_matched_path_where_that_is_asked() {
    let (instance, proxy) = ground(|settings| settings.paths.forward_normalised = true).await;
    for target in ["/a/../b//c?x=/../y", "/%62/./%c3%a9", "http://shop/a/./b?q", "/plain"] {
        assert_eq!(ask(&proxy, target, "shop").await.status, 200, "{target}");
    }
    let read: Vec<_> = instance.messages("normalised");
    let targets: Vec<&str> = read.iter().map(|message| message.target.as_str()).collect();
    assert_eq!(targets, ["/b/c?x=/../y", "/b/%C3%A9", "/a/b?q", "/plain"]);
    assert!(read.iter().all(|message| message.one("x-matched").as_deref() == Some(message.path())));
}

#[tokio::test]
async fn settings_choose_what_is_refused_and_whether_slashes_are_merged() {
    let (instance, proxy) = ground(|settings| {
        settings.paths.refuse = Spellings::CONTROL.and(Spellings::DOT_SEGMENT);
        settings.paths.merge_slashes = false;
    })
    .await;
    for (target, status, matched) in [
        ("/a%2fb", 200, "/a%2Fb"),
        ("/a\\b", 200, "/a%5Cb"),
        ("/a%zz", 200, "/a%25zz"),
        ("//a//b", 200, "//a//b"),
        ("/a/..;x/b", 200, "/a/..;x/b"),
        ("/a/../b", 400, ""),
        ("/a/%2e/b", 400, ""),
        ("/a%00", 400, ""),
    ] {
        assert_eq!(ask(&proxy, target, "shop").await.status, status, "{target}");
        if status == 200 {
            let last = instance.messages(target).pop().unwrap();
            assert_eq!((last.target.as_str(), last.one("x-matched").as_deref()), (target, Some(matched)));
        }
    }
}

#[tokio::test]
async fn hosts_are_compared_without_case_and_port_and_must_agree_with_the_target() {
    let (instance, proxy) = ground(|_| {}).await;
    for (target, host, status) in [
        ("/", "shop", 200),
        ("/", "SHOP:8080", 200),
        ("/", "shop.", 200),
        ("/", "EU.Shop:80", 200),
        ("http://shop/", "Shop", 200),
        ("http://shop:80/", "shop:80", 200),
        ("http://shop:81/", "shop:80", 400),
        ("http://other/", "shop", 400),
        ("http://shop@other/", "shop", 400),
        ("http://other/", "other", 404),
        ("/", "other", 404),
        ("/", "shop.other", 404),
        ("/", "shop:80:80", 400),
        ("/", "shop:http", 400),
        ("/", "shop, other", 400),
        ("/", "shop\u{e9}", 400),
        ("/", "sh%6fp", 400),
        ("/", "..shop", 400),
    ] {
        let reply = ask(&proxy, target, host).await;
        assert_eq!(reply.status, status, "{target} at {host}: {}", reply.head);
    }
    for message in instance.messages("hosts") {
        let bare = message.one("host").unwrap().to_ascii_lowercase();
        let bare = bare.split(':').next().unwrap().trim_end_matches('.');
        assert_eq!(message.one("x-for").as_deref(), Some(bare));
        assert_eq!(message.target, "/", "origin-form");
    }
}
