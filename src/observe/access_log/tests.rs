use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::engine::format::traffic::TrafficLine;

fn record() -> Box<Record> {
    let mut headers = HeaderMap::new();
    headers.append("x-user-group", HeaderValue::from_bytes(b"te\"st\xff").unwrap());
    headers.append("x-lane", HeaderValue::from_static("a"));
    headers.append("x-lane", HeaderValue::from_static("b"));
    headers.append("authorization", HeaderValue::from_static("Bearer secret"));
    headers.append("cookie", HeaderValue::from_static("other=1; session=s3cret; uid=42; uid=43"));
    let fields = ReadFields {
        headers: ["x-user-group", "x-lane"].map(HeaderName::from_static).to_vec(),
        cookies: vec!["session".into(), "uid".into()],
    };
    Box::new(Record {
        at: UNIX_EPOCH + Duration::from_millis(1_795_341_600_123),
        method: Method::GET,
        host: "shop.example.com".into(),
        target: "/cart?x=1".into(),
        scheme: "http",
        protocol: "HTTP/2",
        copied: fields.copy(&headers),
        client: [10, 1, 2, 3].into(),
        peer: [10, 1, 2, 3].into(),
        sni: None,
        san: Arc::from([]),
        request_id: None,
        generation: 7,
        draw: Draw(255),
        place: Place { service: Some("web".into()), rule: Some("ramp".into()), ..Place::default() },
        answer: Answer { status: 503, grpc_status: Some(14), detail: "no_routable_instance", ..Answer::default() },
    })
}

fn line(redact: &[&str]) -> serde_json::Value {
    let mut out = Vec::new();
    let redact: Vec<String> = redact.iter().map(|field| (*field).to_owned()).collect();
    Formatter::new(&redact).line(&record(), &mut out);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_line_is_a_traffic_line_plus_the_result() {
    let line = line(&[]);
    assert_eq!(line["ts"], "2026-11-22T10:00:00.123Z");
    assert_eq!((&line["method"], &line["path"]), (&"GET".into(), &"/cart?x=1".into()));
    assert_eq!(line["headers"]["x-user-group"], "te\"st\u{fffd}");
    assert_eq!(line["headers"]["x-lane"], serde_json::json!(["a", "b"]));
    assert_eq!(line["headers"]["cookie"], "session=s3cret; uid=42", "only named cookies, the first of a name");
    assert_eq!(line["headers"].as_object().unwrap().len(), 3, "only what the rules read");
    assert_eq!((&line["draw"], &line["generation"]), (&"00000000000000ff".into(), &7.into()));
    for always in ["client", "scheme", "sni", "san"] {
        assert!(line.get(always).is_some(), "{always}");
    }
    assert_eq!(line["result"]["detail"], "no_routable_instance");
    assert_eq!((&line["protocol"], &line["result"]["grpc_status"]), (&"HTTP/2".into(), &14.into()));
    assert!(line["result"]["instance"].is_null());
}

#[test]
fn redacted_fields_are_hashed_and_named() {
    let line = line(&["cookie.session", "header.X-User-Group", "client"]);
    let cookie = line["headers"]["cookie"].as_str().unwrap();
    assert!(cookie.starts_with("session=hash-") && cookie.ends_with("; uid=42"), "{cookie}");
    assert!(line["client"].as_str().unwrap().starts_with("2001:db8::"));
    let mut redacted: Vec<_> =
        line["redacted"].as_array().unwrap().iter().map(|field| field.as_str().unwrap()).collect();
    redacted.sort_unstable();
    assert_eq!(redacted, ["client", "cookie.session", "header.x-user-group"]);
}

#[test]
fn a_line_can_be_read_back_as_traffic_redacted_or_not() {
    for redact in [&[][..], &["client", "query", "cookie.session", "header.x-lane"]] {
        let line = TrafficLine::parse(&line(redact).to_string()).unwrap();
        let request = line.request().unwrap();
        assert_eq!((request.path.as_str(), request.draw), ("/cart", Some(Draw(255))));
        assert_eq!(line.rest["result"]["status"], 503);
    }
}

#[test]
fn the_sample_follows_the_draw_and_keeps_server_errors() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::File(folder.path().join("access.log"));
    let settings = Settings { target, sample: WHOLE / 10, ..Settings::default() };
    let (log, mut thread) = AccessLog::start(&settings).unwrap();
    let wanted = (0..10_000).filter(|n| log.wants(Draw(*n), 200)).count();
    assert!((900..1_100).contains(&wanted), "{wanted}");
    assert!((0..100).all(|n| log.wants(Draw(n), 503)));
    log.send(record());
    assert!(thread.close(Duration::from_secs(10)));
    let text = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert_eq!(text.lines().count(), 1);
}
