//! A token makes one request in live traffic answer with how it was decided; without a good one nobody sees anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::ports::unused;
use crate::support::binary::{PATIENCE, Proxy};
use crate::support::site::{admin_post, ready, replace, until};

const RULES: &str = "service: web\nhosts: [shop.test]\n\
                     pools: {gone: version == 1.1, here: version == 1.2}\n\
                     rules:\n  - {name: other, when: header.x-a == b, respond: 204}\n  - {name: all, to: [gone, here]}\n";

/// An instance that answers with the head that it got.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
                while matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                        let _ = stream.write_all(&head);
                        head.clear();
                    }
                }
            });
        }
    });
    address
}

/// The head and the body of an answer.
fn ask(to: SocketAddr, path: &str, host: &str, token: Option<&str>) -> (String, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let field = token.map_or(String::new(), |token| format!("x-pointsman-debug: {token}\r\n"));
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n{field}connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.into(), body.into())
}

fn trace(head: &str) -> Option<Value> {
    let line = head.lines().find_map(|line| line.strip_prefix("x-pointsman-trace: "))?;
    Some(serde_json::from_str(line).unwrap())
}

/// What `explain --token` prints after the field's name.
fn issued(key: &Path, url: &str) -> String {
    let program = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["explain", "--token", "--key-file", key.to_str().unwrap(), "GET", url])
        .output()
        .unwrap();
    assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
    let line = String::from_utf8(program.stdout).unwrap();
    line.trim().strip_prefix("x-pointsman-debug: ").unwrap().to_owned()
}

struct Ground {
    folder: tempfile::TempDir,
    proxy: Proxy,
}

async fn ground(settings: &str) -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("rules")).unwrap();
    replace(&at("rules/web.yaml"), RULES);
    replace(&at("key"), "a key of more than sixteen bytes\n");
    let row = |id: &str, to: SocketAddr, version: &str| {
        format!("    - {{id: {id}, address: 127.0.0.1, port: {}, labels: {{version: '{version}'}}}}\n", to.port())
    };
    let catalog = format!("services:\n  web:\n{}{}", row("web-1", unused(), "1.1"), row("web-2", echo(), "1.2"));
    replace(&at("catalog.yaml"), &catalog);
    let dir = folder.path().display();
    let config = format!("catalog: {{file: {dir}/catalog.yaml}}\nrules: {dir}/rules\n{settings}");
    replace(&at("pointsman.yaml"), &config.replace("KEY", &format!("{dir}/key")));
    let proxy = Proxy::start(&["--config", at("pointsman.yaml").to_str().unwrap()]);
    ready(proxy.admin).await;
    Ground { folder, proxy }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_token_is_answered_with_its_decision_and_its_tries() {
    let Ground { folder, proxy } = ground("debug_token: {key_file: KEY}\n").await;
    let key = folder.path().join("key");
    let token = issued(&key, "http://Shop.test:80/cart/../cart?x=1");
    let (head, body) = ask(proxy.listen, "/cart?y=2", "shop.test", Some(&token));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!body.contains("x-pointsman-debug") && body.contains("GET /cart?y=2"), "{body}");
    let trace_ = trace(&head).unwrap_or_else(|| panic!("{head}"));
    let tries = trace_["tries"].as_array().unwrap();
    let told = |at: usize, key: &str| tries[at][key].as_str().unwrap().to_owned();
    assert_eq!(tries.len(), 2, "{trace_}");
    assert_eq!(
        (told(0, "pool"), told(0, "instance"), told(0, "outcome")),
        ("gone".into(), "web-1".into(), "connect_failed".into())
    );
    assert_eq!(
        (told(1, "pool"), told(1, "instance"), told(1, "outcome")),
        ("here".into(), "web-2".into(), "200".into())
    );
    let result = &trace_["result"];
    assert_eq!(
        (&result["rule"], &result["pool"], &result["instance"]),
        (&json!("all"), &json!("here"), &json!("web-2"))
    );
    assert_eq!((&result["status"], &trace_["rules"][0]["verdict"]), (&json!(200), &json!("failed")));
    let draw = trace_["draw"].as_str().unwrap();
    assert_eq!(draw.len(), 16);

    // The same request by the same luck, from the files.
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["explain", "--rules", &path("rules"), "--catalog", &path("catalog.yaml"), "--draw", draw])
        .args(["--format", "json", "GET", "http://shop.test/cart?y=2"])
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&program.stdout).unwrap();
    assert_eq!((&said["rules"], &said["result"]["instance"]), (&trace_["rules"], &json!("web-1")));

    // A refusal is explained too.
    let none = issued(&key, "http://nowhere.test/");
    let (head, _) = ask(proxy.listen, "/", "nowhere.test", Some(&none));
    assert_eq!(trace(&head).unwrap()["result"]["detail"], "no_route");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_good_here_and_now_shows_nothing_and_goes_nowhere() {
    let Ground { folder, proxy } = ground("debug_token: {key_file: KEY}\n").await;
    let key = folder.path().join("key");
    let token = issued(&key, "http://shop.test/cart");
    let other = folder.path().join("other");
    std::fs::write(&other, "another key of sixteen bytes").unwrap();
    let forged = issued(&other, "http://shop.test/cart");
    for (path, token) in [("/cart/1", token.as_str()), ("/cart", "1.2"), ("/cart", ""), ("/cart", &forged)] {
        let (head, body) = ask(proxy.listen, path, "shop.test", Some(token));
        assert!(head.starts_with("HTTP/1.1 200") && trace(&head).is_none(), "{path} {token}: {head}");
        assert!(!body.contains("x-pointsman-debug"), "{body}");
    }
    assert!(trace(&ask(proxy.listen, "/cart", "shop.test", None).0).is_none());

    // Another key counts as soon as its file says so.
    std::fs::rename(&other, &key).unwrap();
    until("the new key is in force", async || {
        trace(&ask(proxy.listen, "/cart", "shop.test", Some(&forged)).0).is_some()
    })
    .await;
    assert!(trace(&ask(proxy.listen, "/cart", "shop.test", Some(&token)).0).is_none(), "made with the key before");

    // The admin side issues them as well.
    let (status, answer) =
        admin_post(proxy.admin, "/v1/debug-token", r#"{"url": "shop.test/cart", "for": "1m"}"#).await;
    assert_eq!((status, &answer["path"]), (200, &json!("/cart")), "{answer}");
    assert!(trace(&ask(proxy.listen, "/cart", "shop.test", answer["token"].as_str()).0).is_some());
    let (status, answer) =
        admin_post(proxy.admin, "/v1/debug-token", r#"{"url": "shop.test/cart", "for": "25h"}"#).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_setting_there_are_no_traces_and_the_field_still_goes_nowhere() {
    let Ground { folder, proxy } = ground("").await;
    let token = issued(&folder.path().join("key"), "http://shop.test/cart");
    let (head, body) = ask(proxy.listen, "/cart", "shop.test", Some(&token));
    assert!(trace(&head).is_none() && !body.contains("x-pointsman-debug"), "{head}\n{body}");
    let (status, answer) = admin_post(proxy.admin, "/v1/debug-token", r#"{"url": "shop.test/cart"}"#).await;
    assert_eq!(status, 409, "{answer}");
}
