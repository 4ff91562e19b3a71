use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::tests::{Ground, ground};
use super::*;
use crate::engine::policy::Protocol;
use crate::engine::testing::instance;
use crate::upstream::wire::Wire;

const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request as an instance saw it: the number of its connection, its number on that, its head.
type Seen = (u32, u32, String);

/// What an instance does with a request: its answer, and whether it closes then.
type Manner = fn(connection: u32, request: u32) -> (&'static str, bool);

async fn instance_that(manner: Manner) -> (SocketAddr, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (told, seen) = mpsc::channel(1_000);
    tokio::spawn(async move {
        let mut connection = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connection += 1;
            tokio::spawn(serve(stream, connection, manner, told.clone()));
        }
    });
    (addr, seen)
}

async fn serve(mut stream: TcpStream, connection: u32, manner: Manner, told: mpsc::Sender<Seen>) {
    let (mut head, mut piece, mut request) = (String::new(), [0; 1_024], 0);
    while let Ok(read) = stream.read(&mut piece).await {
        if read == 0 {
            return;
        }
        head.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        if head.ends_with("\r\n\r\n") {
            request += 1;
            // The test may have seen enough.
            let _ = told.send((connection, request, std::mem::take(&mut head))).await;
            let (answer, closes) = manner(connection, request);
            let _ = stream.write_all(answer.as_bytes()).await;
            if closes {
                return;
            }
        }
    }
}

fn ground_of(check: &str, addr: SocketAddr, labels: &[(&str, &str)]) -> Ground {
    let rules = format!(
        "service: web\npools: {{all: id exists}}\nrules: [{{name: all, to: [all]}}]\n\
         check: {{{check}, interval: 100ms, idle_interval: 100ms}}\n"
    );
    ground(&[&rules], vec![("web", vec![instance("web", "web-1", addr.port(), labels)])])
}

/// Makes checks until the instance has seen so many; what it saw, and the metrics.
async fn checked(check: &str, manner: Manner, count: usize) -> (Vec<Seen>, String) {
    let (addr, mut seen) = instance_that(manner).await;
    let ground = ground_of(check, addr, &[]);
    let running = tokio::spawn(ground.checks.run());
    let mut all = Vec::new();
    while all.len() < count {
        all.push(tokio::time::timeout(Duration::from_secs(20), seen.recv()).await.expect("in time").unwrap());
    }
    running.abort();
    (all, ground.metrics.render())
}

fn connections(seen: &[Seen]) -> Vec<u32> {
    seen.iter().map(|(connection, ..)| *connection).collect()
}

#[tokio::test]
async fn six_checks_are_made_on_a_connection_and_the_next_on_a_fresh_one() {
    let (seen, told) = checked("http: /health", |_, _| (WELL, false), 14).await;
    assert_eq!(connections(&seen), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3]);
    assert!(seen.iter().all(|(.., head)| !head.contains("connection:")), "{seen:?}");
    let count = |how: &str| format!("pointsman_check_connections_total{{service=\"web\",connection=\"{how}\"}} ");
    assert!(told.contains(&count("kept")) && told.contains(&count("fresh")), "{told}");
    assert!(!told.contains(&count("again")), "{told}");
}

#[tokio::test]
async fn who_closes_what_is_idle_or_at_the_next_request_passes_without_a_word() {
    // At once after the answer, and (worse) when the next request is there.
    for manner in [(|_, _| (WELL, true)) as Manner, |_, request| if request == 2 { ("", true) } else { (WELL, false) }]
    {
        let (seen, told) = checked("http: /health, fall: 2", manner, 9).await;
        assert!(connections(&seen).contains(&4), "{seen:?}");
        assert!(told.contains("result=\"passed\""), "{told}");
        assert!(!told.contains("result=\"exchange\""), "{told}");
    }
}

#[tokio::test]
async fn a_failing_instance_is_asked_on_fresh_connections() {
    fn bad(connection: u32, request: u32) -> (&'static str, bool) {
        if (connection, request) < (1, 3) {
            (WELL, false)
        } else {
            ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", false)
        }
    }
    let (seen, _) = checked("http: /health", bad, 7).await;
    assert_eq!(connections(&seen), [1, 1, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn no_connection_is_kept_where_rules_or_the_answer_forbid_it() {
    let closing: Manner = |_, _| ("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n", false);
    let old: Manner = |_, _| ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false);
    let too_much: Manner = |_, _| ("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nok", false);
    let untold: Manner = |_, _| ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", false);
    let well: Manner = |_, _| (WELL, false);
    for (check, manner) in [
        ("http: /health, reuse: false", well),
        ("http: /health, fall: 1", well),
        ("http: /health", closing),
        ("http: /health", old),
        ("http: /health, expect: {body: ok}", too_much),
        ("http: /health", untold),
    ] {
        let (seen, told) = checked(check, manner, 4).await;
        assert_eq!(connections(&seen), [1, 2, 3, 4], "{check}");
        let says_close = seen.iter().all(|(.., head)| head.contains("connection: close\r\n"));
        assert_eq!(says_close, check.contains("reuse") || check.contains("fall"), "{seen:?}");
        assert!(told.contains("result=\"passed\"") && !told.contains("connection=\"again\""), "{told}");
    }
}

/// An instance of HTTP/2 that says how many connections it took.
async fn instance_of_h2(connections: Arc<AtomicU32>, told: mpsc::Sender<(u32, http::Uri)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (connection, told) = (connections.fetch_add(1, Ordering::Relaxed) + 1, told.clone());
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let told = told.clone();
                async move {
                    let _ = told.send((connection, request.uri().clone())).await;
                    let body = match request.headers().contains_key("grpc-timeout") {
                        true => Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]),
                        false => Bytes::from_static(b"ok"),
                    };
                    let fields = async {
                        Some(Ok(http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])))
                    };
                    let body = http_body_util::BodyExt::with_trailers(Full::new(body), fields);
                    let response = http::Response::builder().header("content-type", "application/grpc");
                    Ok::<_, Infallible>(response.body(body).unwrap())
                }
            });
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(served.serve_connection(TokioIo::new(stream), service));
        }
    });
    addr
}

#[tokio::test]
async fn checks_over_http2_share_a_connection_as_well() {
    for (check, path) in
        [("http: /health, expect: {body: ok}", "/health"), ("grpc: true", "/grpc.health.v1.Health/Check")]
    {
        let (told, mut seen) = mpsc::channel(100);
        let addr = instance_of_h2(Arc::default(), told).await;
        let ground = ground_of(check, addr, &[("proto", "h2")]);
        let running = tokio::spawn(ground.checks.run());
        for number in 0..8 {
            let (connection, uri) =
                tokio::time::timeout(Duration::from_secs(20), seen.recv()).await.expect("in time").unwrap();
            assert_eq!((connection, uri.path()), (number / 6 + 1, path), "{check}");
            assert_eq!(uri.authority().map(ToString::to_string), Some(addr.to_string()));
        }
        running.abort();
        let told = ground.metrics.render();
        assert!(told.contains("result=\"passed\"") && !told.contains("connection=\"again\""), "{told}");
    }
}

/// A kept connection to a listener, as after one check.
async fn rest(addr: SocketAddr, check: &Arc<Check>) -> Rest {
    let wire = Wire::Plain(TcpStream::connect(addr).await.unwrap());
    let way = Way { check: Arc::clone(check), dial: Dial::plain(addr), protocol: Protocol::Http1 };
    Rest { kept: kept::Kept::Http1(wire), way, since: Millis(0), checks: 1 }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_same_question_for_a_minute_and_within_bounds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let probe = Probe::Http {
        path: "/".into(),
        method: "GET".into(),
        host: None,
        statuses: vec![(200, 200)],
        header: None,
        body: None,
    };
    let check = Arc::new(Check::new(probe));
    let live = crate::engine::snapshot::Live::new(7);
    let mut keep = Keep::at_most(1);
    let way = rest(addr, &check).await.way;

    keep.put(7, rest(addr, &check).await, Millis(5_000));
    assert!(keep.take(&live, &way, Millis(5_000)).is_some());
    assert!(keep.take(&live, &way, Millis(5_000)).is_none(), "it was taken");

    keep.put(7, rest(addr, &check).await, Millis(60_000));
    assert!(keep.is_empty(), "it would be too old by then");
    keep.put(7, Rest { checks: 6, ..rest(addr, &check).await }, Millis(5_000));
    assert!(keep.is_empty(), "six were made on it");

    let others = [
        Way { check: Arc::new(Check { tls_name: Some("web".into()), ..(*check).clone() }), ..way.clone() },
        Way { protocol: Protocol::H2, ..way.clone() },
        Way { dial: Dial::plain(([127, 0, 0, 1], 1).into()), ..way.clone() },
    ];
    for other in others {
        keep.put(7, rest(addr, &check).await, Millis(5_000));
        assert!(keep.take(&live, &other, Millis(5_000)).is_none(), "{other:?}");
        assert!(keep.is_empty());
    }

    keep.put(7, rest(addr, &check).await, Millis(5_000));
    keep.put(8, rest(addr, &check).await, Millis(5_000));
    assert!(keep.take(&crate::engine::snapshot::Live::new(8), &way, Millis(5_000)).is_none(), "there is room for one");
    keep.retain(|id| id != 7);
    assert!(keep.is_empty(), "its endpoint is gone");
    keep.put(8, rest(addr, &check).await, Millis(5_000));
    assert!(!keep.is_empty(), "the room is free again");
}
