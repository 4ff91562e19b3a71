//! What stands behind a body, in each pairing of protocols: what passes, what is dropped, and that nothing of it is ever
//! taken for a field of the head.

use std::sync::{Arc, Mutex};

use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::h2::{self as h2c, H2Client};
use crate::harness::{Proxy, Scripted, Setup, instance, soon};

/// The rules say who the user is, and take a role away.
const RULES: &str = "service: web\npools: {all: id exists}\nheaders: {request: {set: {x-user: rule}, remove: [x-role]}, \
                     response: {set: {x-asked: '{path}'}}}\nrules: [{name: all, to: [all]}]\n";

type Fields = Vec<(String, String)>;

/// A message as it arrived.
#[derive(Clone, Debug, Default)]
struct Got {
    head: Fields,
    body: Vec<u8>,
    trailers: Fields,
}

impl Got {
    fn of(head: &HeaderMap, body: Vec<u8>, trailers: Option<&HeaderMap>) -> Self {
        let fields = |map: &HeaderMap| {
            map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
        };
        Self { head: fields(head), body, trailers: trailers.map(fields).unwrap_or_default() }
    }

    fn all(&self, name: &str) -> Vec<&str> {
        self.head.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    fn trailing(&self) -> Vec<&str> {
        self.trailers.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// What one side sends behind its body.
#[derive(Clone, Copy, Debug)]
struct Sent {
    trailers: &'static [(&'static str, &'static str)],
    /// A field `Trailer` names them.
    announced: bool,
}

impl Sent {
    fn announcement(self) -> Option<String> {
        let names: Vec<_> = self.trailers.iter().map(|(name, _)| *name).collect();
        self.announced.then(|| names.join(", "))
    }

    fn lines(self) -> String {
        let head = self.announcement().map_or(String::new(), |names| format!("trailer: {names}\r\n"));
        let behind: String = self.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{head}transfer-encoding: chunked\r\n\r\n4\r\ntext\r\n0\r\n{behind}\r\n")
    }

    fn map(self) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        self.trailers.iter().map(pair).collect()
    }
}

/// Fields up to an empty line.
fn fields(read: &mut Vec<u8>) -> Option<(String, Fields)> {
    let end = if read.starts_with(b"\r\n") { 0 } else { read.windows(4).position(|four| four == b"\r\n\r\n")? + 2 };
    let text = String::from_utf8(read.drain(..end + 2).take(end).collect()).unwrap();
    let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some((text.lines().next().unwrap_or("").to_owned(), text.lines().filter_map(field).collect()))
}

/// The next message of HTTP/1 with a chunked body.
fn parsed(read: &mut Vec<u8>) -> Option<Got> {
    let mut rest = read.clone();
    let mut got = Got { head: fields(&mut rest)?.1, ..Got::default() };
    assert_eq!(got.all("transfer-encoding"), ["chunked"], "{got:?}");
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest.drain(..line + 2);
        if size == 0 {
            got.trailers = fields(&mut rest)?.1;
            *read = rest;
            return Some(got);
        }
        if rest.len() < size + 2 {
            return None;
        }
        got.body.extend(rest.drain(..size + 2).take(size));
    }
}

async fn message(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<Got> {
    loop {
        if let Some(got) = parsed(read) {
            return Some(got);
        }
        if !matches!(soon("a message", stream.read_buf(read)).await, Ok(n) if n > 0) {
            return None;
        }
    }
}

/// An instance that answers everything with `sent`, and keeps what it got.
struct Instance {
    scripted: Scripted,
    proto: &'static str,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Instance {
    async fn start(over_h2: bool, sent: Sent) -> Self {
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let all = Arc::clone(&got);
        let scripted = if over_h2 {
            let act = move |request: Request<h2::RecvStream>, mut respond: SendResponse<bytes::Bytes>, _| {
                let all = Arc::clone(&all);
                async move {
                    let (head, mut body) = request.into_parts();
                    let Ok((body, trailers)) = h2c::read(&mut body).await else { return };
                    all.lock().unwrap().push(Got::of(&head.headers, body, trailers.as_ref()));
                    let mut answer = Response::new(());
                    if let Some(names) = sent.announcement() {
                        answer.headers_mut().insert("trailer", names.parse().unwrap());
                    }
                    let mut sink = respond.send_response(answer, false).unwrap();
                    sink.send_data("text".into(), false).unwrap();
                    sink.send_trailers(sent.map()).unwrap();
                }
            };
            h2c::instance(act).await.0
        } else {
            Scripted::raw(move |mut stream, _| {
                let all = Arc::clone(&all);
                async move {
                    let mut read = Vec::new();
                    while let Some(got) = message(&mut stream, &mut read).await {
                        all.lock().unwrap().push(got);
                        let answer = format!("HTTP/1.1 200 OK\r\n{}", sent.lines());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            })
            .await
        };
        Self { scripted, proto: if over_h2 { "h2c" } else { "http1" }, got }
    }

    async fn proxy(&self) -> Proxy {
        let instances = vec![instance("web-0", self.scripted.address, &[("proto", self.proto)])];
        Setup { instances, logs: true, ..Setup::default() }.rules(RULES).start().await
    }

    fn last(&self) -> Got {
        self.got.lock().unwrap().last().cloned().unwrap()
    }
}

/// A client with one connection.
enum Client {
    Http1(TcpStream, Vec<u8>),
    H2(H2Client),
}

impl Client {
    async fn connect(proxy: &Proxy, over_h2: bool) -> Self {
        match over_h2 {
            true => Self::H2(H2Client::connect(proxy.address).await),
            false => Self::Http1(TcpStream::connect(proxy.address).await.unwrap(), Vec::new()),
        }
    }

    async fn ask(&mut self, sent: Sent, takes: bool) -> Got {
        match self {
            Self::Http1(stream, read) => {
                let te = if takes { "te: trailers\r\nconnection: te\r\n" } else { "" };
                let head = format!("POST /x HTTP/1.1\r\nhost: shop\r\nx-team: a\r\n{te}");
                stream.write_all(format!("{head}{}", sent.lines()).as_bytes()).await.unwrap();
                message(stream, read).await.unwrap()
            }
            Self::H2(client) => {
                let mut request = Request::post("http://shop/x").header("x-team", "a");
                if takes {
                    request = request.header("te", "trailers");
                }
                if let Some(names) = sent.announcement() {
                    request = request.header("trailer", names);
                }
                let (answer, mut stream) = client.start(request.body(()).unwrap(), false).await;
                h2c::write(&mut stream, b"text", false).await.unwrap();
                stream.send_trailers(sent.map()).unwrap();
                let reply = h2c::collect(soon("the answer", answer).await.unwrap()).await.unwrap();
                Got::of(&reply.headers, reply.body, reply.trailers.as_ref())
            }
        }
    }
}

const ASKED: &[(&str, &str)] = &[("x-sum", "1"), ("x-more", "2")];
const ANSWERED: &[(&str, &str)] = &[("x-end", "3"), ("grpc-status", "0")];

#[tokio::test]
async fn trailers_pass_where_the_protocol_lets_them_and_bodies_are_whole_where_it_does_not() {
    for (client_h2, instance_h2) in [(false, false), (false, true), (true, false), (true, true)] {
        for announced in [true, false] {
            let instance = Instance::start(instance_h2, Sent { trailers: ANSWERED, announced }).await;
            let proxy = instance.proxy().await;
            let mut client = Client::connect(&proxy, client_h2).await;
            for takes in [true, false] {
                let what = format!("client h2: {client_h2}, instance h2: {instance_h2}, {announced}, {takes}");
                let answer = client.ask(Sent { trailers: ASKED, announced }, takes).await;
                let request = instance.last();
                assert_eq!((&request.body[..], &answer.body[..]), (&b"text"[..], &b"text"[..]), "{what}");
                let asked: &[&str] = if instance_h2 || announced { &["x-sum", "x-more"] } else { &[] };
                assert_eq!(request.trailing(), asked, "{what}");
                let answered: &[&str] = if client_h2 || announced && takes { &["x-end", "grpc-status"] } else { &[] };
                assert_eq!(answer.trailing(), answered, "{what}");
                assert_eq!(request.all("te").len(), usize::from(takes), "{what}");
            }
            for line in proxy.logged(2).await {
                assert_eq!((&line["status"], &line["detail"]), (&200.into(), &serde_json::Value::Null), "{line}");
            }
            assert_eq!(instance.scripted.connections(), 1, "both went over one connection: {client_h2} {instance_h2}");
        }
    }
}

#[tokio::test]
async fn behind_a_declared_length_http1_has_no_trailers_and_the_connection_stays_good() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    let client = H2Client::connect(proxy.address).await;
    for _ in 0..2 {
        let request = Request::post("http://shop/x").header("content-length", "4").header("trailer", "x-sum");
        let (answer, mut stream) = client.start(request.body(()).unwrap(), false).await;
        h2c::write(&mut stream, b"text", false).await.unwrap();
        stream.send_trailers(Sent { trailers: ASKED, announced: true }.map()).unwrap();
        let reply = h2c::collect(soon("the answer", answer).await.unwrap()).await.unwrap();
        assert_eq!(reply.text(), "POST /x HTTP/1.1 text");
    }
    assert_eq!(instance.connections(), 1);

    let act = |_: Request<h2::RecvStream>, mut respond: SendResponse<bytes::Bytes>, _| async move {
        let answer = Response::builder().header("content-length", "4").header("trailer", "x-end").body(()).unwrap();
        let mut sink = respond.send_response(answer, false).unwrap();
        sink.send_data("text".into(), false).unwrap();
        sink.send_trailers(Sent { trailers: ANSWERED, announced: true }.map()).unwrap();
    };
    let (instance, _) = h2c::instance(act).await;
    let instances = vec![crate::harness::instance("web-0", instance.address, &[("proto", "h2c")])];
    let proxy = Setup { instances, ..Setup::default() }.start().await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: shop\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
        let reply = client.reply().await;
        assert_eq!((reply.field("content-length").as_deref(), reply.text().as_str()), (Some("4"), "text"));
    }
}

/// Forged fields of the head, and one that is good.
const FORGED: &[(&str, &str)] = &[
    ("content-length", "3"),
    ("host", "evil"),
    ("authorization", "Basic eDp4"),
    ("cookie", "admin=1"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("forwarded", "for=6.6.6.6"),
    ("x-request-id", "forged"),
    ("baggage", "lane=x"),
    ("x-pointsman-debug", "1"),
    ("x-user", "admin"),
    ("x-role", "admin"),
    ("x-team", "b"),
    ("x_user", "admin"),
    ("x-good", "1"),
];
const FORGED_ONLY: &[(&str, &str)] = &[("x-user", "admin"), ("authorization", "Basic eDp4")];
const FORGED_FRAMES: &[(&str, &str)] =
    &[("transfer-encoding", "chunked"), ("connection", "close"), ("te", "trailers"), ("trailer", "x"), ("x-good", "1")];
const FORGED_ANSWER: &[(&str, &str)] = &[
    ("content-length", "3"),
    ("content-type", "text/html"),
    ("set-cookie", "a=b"),
    ("location", "http://evil/"),
    ("x-pointsman-rule", "other"),
    ("x-good", "1"),
];

#[tokio::test]
async fn trailers_are_never_fields_of_a_head_and_those_that_would_be_are_dropped() {
    for (client_h2, instance_h2) in [(false, false), (false, true), (true, false), (true, true)] {
        let what = format!("client h2: {client_h2}, instance h2: {instance_h2}");
        let instance = Instance::start(instance_h2, Sent { trailers: FORGED_ANSWER, announced: true }).await;
        let proxy = instance.proxy().await;
        let mut client = Client::connect(&proxy, client_h2).await;
        let mut all = vec![(FORGED, &["x-good"][..]), (FORGED_ONLY, &[])];
        if !client_h2 {
            // HTTP/2 has no words for these: whoever sends them has its stream reset.
            all.push((FORGED_FRAMES, &["x-good"]));
        }
        for (trailers, passed) in all {
            let answer = client.ask(Sent { trailers, announced: true }, true).await;
            let request = instance.last();
            assert_eq!((request.trailing(), &request.body[..]), (passed.to_vec(), &b"text"[..]), "{what}");
            assert_eq!((request.all("x-user"), request.all("x-team")), (vec!["rule"], vec!["a"]), "{what}");
            assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"], "{what}");
            assert_eq!(
                (request.all("x-forwarded-proto"), request.all("x-request-id").len()),
                (vec!["http"], 1),
                "{what}"
            );
            for name in
                ["authorization", "cookie", "forwarded", "x-role", "x_user", "x-pointsman-debug", "content-length"]
            {
                assert!(request.all(name).is_empty(), "{what}: {name}");
            }
            assert_eq!((answer.trailing(), &answer.body[..]), (vec!["x-good"], &b"text"[..]), "{what}");
            assert_eq!(answer.all("x-asked"), ["/x"], "{what}");
            for name in ["set-cookie", "location", "x-pointsman-rule", "content-type"] {
                assert!(answer.all(name).is_empty(), "{what}: {name}");
            }
        }
        assert_eq!(instance.scripted.connections(), 1, "{what}");
    }
}
