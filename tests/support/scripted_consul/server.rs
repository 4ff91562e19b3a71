//! The server's side: accepting, blocking, answering.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::{Script, Shared, Slot, Store};

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let most = shared.script.lock().expect("no panic holds it").max_connections;
        let taken = shared.slots.fetch_add(1, Ordering::AcqRel) + 1;
        shared.most_slots.fetch_max(taken, Ordering::AcqRel);
        let slot = Arc::new(Slot(Arc::clone(&shared)));
        if taken <= most {
            tokio::spawn(serve(stream, Arc::clone(&shared), slot));
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut cut = shared.cut.subscribe();
    cut.mark_unchanged();
    let respond = |request: Request<Incoming>| {
        let (shared, slot) = (Arc::clone(&shared), Arc::clone(&slot));
        // A task of its own: a client that goes away does not end its query, and does not free its slot.
        let query = tokio::spawn(async move {
            let _slot = slot;
            answer(&shared, &request).await
        });
        async move { Ok::<_, Infallible>(query.await.expect("answering does not panic")) }
    };
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond));
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = connection => {}
        _ = cut.changed() => {}
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned();
    shared.requests.lock().expect("no panic holds it").push(target);
    let script = || shared.script.lock().expect("no panic holds it").clone();
    let at_start = script();
    if let Some(error) = refuse(shared, request, &at_start) {
        return error;
    }
    let query = request.uri().query().unwrap_or("");
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
    };
    let stale = query.split('&').any(|pair| pair == "stale");
    let index: u64 = parameter("index").and_then(|text| text.parse().ok()).unwrap_or(0);
    let wait = parameter("wait").map_or(300_000, |text| millis(&text));
    let look = || {
        let (hidden, path) = (script().hidden, request.uri().path());
        let unread = at_start.withdrawn || hidden && path.starts_with("/v1/health/");
        look(&shared.store.lock().expect("no panic holds it"), path, unread)
    };
    let (mut changed, mut restored) = (shared.changed.subscribe(), shared.restored.subscribe());
    let mut seen = look();
    if index > 0 {
        let longer = wait + std::process::id() as u64 % (wait / 16 + 1);
        let deadline = tokio::time::Instant::now() + Duration::from_millis(longer);
        while seen.0 <= index || script().frozen {
            tokio::select! {
                _ = changed.changed() => {}
                // The old index and the old body, as the real one.
                _ = restored.changed() => break,
                () = tokio::time::sleep_until(deadline), if !script().frozen => break,
            }
            if let Some(error) = refuse(shared, request, &script()) {
                return error;
            }
            seen = look();
        }
    }
    while script().frozen {
        let _ = changed.changed().await;
    }
    let now = script();
    let body = match &now.body {
        Some(garbage) if request.uri().path().starts_with("/v1/health/service/") => garbage.clone(),
        _ => seen.1,
    };
    let about_service = request.uri().path().starts_with("/v1/health/service/");
    let lags = about_service && std::mem::take(&mut shared.script.lock().expect("no panic holds it").lag_next);
    good(request, &now, seen.0 - u64::from(lags), stale, body)
}

/// An error instead of an answer.
fn refuse(shared: &Shared, request: &Request<Incoming>, script: &Script) -> Option<Response<Body>> {
    let token = request.headers().get("x-consul-token").and_then(|value| value.to_str().ok());
    if script.token.is_some() && token != script.token.as_deref() {
        return Some(error(403, "ACL not found"));
    }
    if script.list_forbidden && request.uri().path() == "/v1/catalog/services" {
        return Some(error(403, "Permission denied"));
    }
    if let Some((status, text)) = &script.fail {
        return Some(error(*status, text));
    }
    let mut live = shared.script.lock().expect("no panic holds it");
    if live.fail_next > 0 {
        live.fail_next -= 1;
        return Some(error(500, "rpc error making call: EOF"));
    }
    None
}

/// Index and body of a path now.
fn look(store: &Store, path: &str, withdrawn: bool) -> (u64, String) {
    if path == "/v1/catalog/services" {
        let mut names: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        if !withdrawn {
            names.insert("consul", Vec::new());
            for (name, service) in &store.services {
                let tags = service
                    .instances
                    .values()
                    .flat_map(|element| element["Service"]["Tags"].as_array().into_iter().flatten());
                names.insert(name, tags.cloned().collect());
            }
        }
        return (store.registrations.max(1), json!(names).to_string());
    }
    let name = unescape(path.trim_start_matches("/v1/health/service/")).to_lowercase();
    let found = store.services.iter().find(|(key, _)| key.to_lowercase() == name).map(|(_, service)| service);
    let index = match found {
        Some(service) => service.index,
        None if store.extinction > 0 => store.extinction,
        None => store.registrations,
    };
    let elements: Vec<&Value> =
        found.into_iter().filter(|_| !withdrawn).flat_map(|service| service.instances.values()).collect();
    (index.max(1), json!(elements).to_string())
}

fn good(request: &Request<Incoming>, script: &Script, index: u64, stale: bool, body: String) -> Response<Body> {
    let mut response = Response::builder()
        .header("Content-Type", "application/json")
        .header("X-Consul-Effective-Consistency", if stale { "stale" } else { "leader" })
        .header("X-Consul-Knownleader", if stale { script.leader_known } else { true }.to_string())
        .header("X-Consul-Lastcontact", if stale { script.last_contact } else { 0 }.to_string());
    if !script.no_index {
        response = response.header("X-Consul-Index", index);
    }
    let gzip = request.headers().get("accept-encoding").is_some_and(|value| value == "gzip");
    let bytes = if gzip {
        response = response.header("Content-Encoding", "gzip");
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(body.as_bytes()).and_then(|()| writer.finish()).expect("memory does not fail")
    } else {
        body.into_bytes()
    };
    let body = if script.cut_bodies {
        Cut(Some(Bytes::from(bytes[..bytes.len() / 2].to_vec()))).boxed()
    } else {
        Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
    };
    response.body(body).expect("the head is well-formed")
}

/// Every error carries index 1 and an unknown leader, as text.
fn error(status: u16, text: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("X-Consul-Index", "1")
        .header("X-Consul-Knownleader", "false")
        .body(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed())
        .expect("the head is well-formed")
}

fn millis(text: &str) -> u64 {
    let number = |unit: &str| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    number("ms")
        .or_else(|| number("s").map(|n| n * 1_000))
        .or_else(|| number("m").map(|n| n * 60_000))
        .unwrap_or(300_000)
}

fn unescape(text: &str) -> String {
    let (mut out, bytes, mut at) = (Vec::new(), text.as_bytes(), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A body that breaks off after this part.
struct Cut(Option<Bytes>);

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let part = self.0.take().map(|part| Ok(Frame::data(part)));
        Poll::Ready(Some(part.unwrap_or_else(|| Err(std::io::Error::other("cut")))))
    }
}
