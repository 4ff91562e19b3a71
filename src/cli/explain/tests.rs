use std::io::BufRead as _;
use std::net::TcpListener;

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Whole {
    #[command(flatten)]
    args: Args,
}

const RULES: &str = "service: web\npools: {all: id exists, none: version == 9}\nrules:\n  - {name: none, when: path under '/none', to: none}\n  - {name: all, to: all}\n";
const CATALOG: &str = "services: {web: [{id: w1, address: 127.0.0.1, port: 9001}]}\n";

fn explained(words: &[&str]) -> (u8, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("web.yaml"), RULES).unwrap();
    std::fs::write(at("broken.yaml"), "servce: web\n").unwrap();
    std::fs::write(at("catalog.yml"), CATALOG).unwrap();
    let all: Vec<String> =
        ["explain"].iter().chain(words).map(|word| word.strip_prefix("./").map_or((*word).to_owned(), &at)).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(&Whole::parse_from(all).args, &mut out, &mut err).unwrap();
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

const FILES: [&str; 4] = ["--rules", "./web.yaml", "--catalog", "./catalog.yml"];

#[test]
fn the_status_says_routed_or_not_or_unreadable() {
    let ask = |words: &[&str]| explained(&[&FILES[..], words].concat());
    let (status, out, err) = ask(&["GET", "shop.example.com/cart"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("→ w1 127.0.0.1:9001 (pool all, level 0), rule all"), "{out}");
    assert_eq!(ask(&["GET", "http://h/none"]).0, 3);
    assert_eq!(ask(&["GET", "/cart"]).0, 2);
    assert_eq!(ask(&["GET", "/cart", "-H", "host: h"]).0, 0);
    assert_eq!(ask(&["GET", "h/%2f"]).0, 2);
    assert_eq!(ask(&["GET", "h/", "-H", "no colon"]).0, 2);
    let (status, _, err) = explained(&["--rules", "./broken.yaml", "--catalog", "./catalog.yml", "GET", "h/"]);
    assert_eq!(status, 2);
    assert!(err.contains("E001"), "{err}");
    assert_eq!(explained(&["--rules", "./web.yaml", "--catalog", "./missing.yml", "GET", "h/"]).0, 2);
}

#[test]
fn the_draw_is_taken_and_given_back() {
    let (_, out, _) = explained(&[&FILES[..], &["--format", "json", "--draw", "ff", "GET", "h/"]].concat());
    let told: Explanation = serde_json::from_str(&out).unwrap();
    assert_eq!(told.draw, "00000000000000ff");
}

#[test]
fn a_live_proxy_is_asked_with_a_traffic_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, answer, _) = explained(&[&FILES[..], &["--format", "json", "GET", "h/none"]].concat());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = io::BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
            length = line.strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        TrafficLine::parse(std::str::from_utf8(&body).unwrap()).unwrap()
    });
    let (status, out, err) = explained(&["--admin", &address, "GET", "http://h/none?x=1", "-H", "a: b"]);
    let asked = server.join().unwrap();
    assert_eq!((asked.host.as_str(), asked.path.as_str()), ("h", "/none?x=1"));
    assert_eq!((status, err.as_str()), (3, ""));
    assert!(out.contains("refused 503 no_routable_instance"), "{out}");
}

#[test]
fn a_proxy_that_is_not_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (status, _, err) = explained(&["--admin", &address, "GET", "h/"]);
    assert_eq!(status, 2);
    assert!(err.contains(&address), "{err}");
}

#[test]
fn a_greeting_is_explained_by_its_name_and_a_request_over_tls_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("db.yaml");
    let text = "service: web\nhosts: [db.test, www.test]\npools: {all: id exists}\nrules:\n  - {name: page, when: host == www.test, \
                respond: {status: 200}}\n  - {name: staff, when: tls.client.san contains alice, to: all}\n  - {name: named, \
                when: 'tls.sni == db.test and scheme == https', to: all}\n";
    std::fs::write(&rules, text).unwrap();
    let rules = rules.to_str().unwrap();
    let ask = |words: &[&str]| explained(&[&["--rules", rules, "--catalog", "./catalog.yml"][..], words].concat());
    let (status, out, err) = ask(&["--sni", "DB.test"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("CONNECT https://db.test/") && out.contains("→ w1 127.0.0.1:9001"), "{out}");
    assert!(out.contains("rule named"), "{out}");
    let (status, out, _) = ask(&["--sni", "www.test"]);
    assert_eq!(status, 3, "nobody reads what a rule answers by itself: {out}");
    assert!(out.contains("refused 405 method_refused"), "{out}");
    let (status, out, _) = ask(&["--sni", ""]);
    assert_eq!(status, 3);
    assert!(out.contains("no_route"), "{out}");
    assert!(ask(&["--sni", "db.test."]).1.contains("rule named"), "as it is read off the wire");
    assert!(ask(&["--sni", "192.0.2.1"]).1.contains("no_route"), "an address is no name");
    assert_eq!(ask(&["GET", "https://db.test/"]).0, 3, "no rule matches without the name");
    assert_eq!(ask(&["--sni", "db.test", "GET", "https://db.test/"]).0, 0);
    assert!(ask(&["--san", "alice", "GET", "http://db.test/"]).1.contains("rule staff"));
    assert_eq!(ask(&["--sni", "db.test", "-H", "a: b"]).0, 2);
    assert_eq!(ask(&["--sni", "not a name"]).0, 2);
}
