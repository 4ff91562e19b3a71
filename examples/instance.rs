//! A sample instance for trying things out: `cargo run --example instance -- PORT ID [key=value]…`.
//!
//! It answers every request with its id and labels, and prints the address it listens on (port 0: any free one), then
//! `POST X` for every POST, where X is the request's `x-id`. `?sleep=500` answers after so many milliseconds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(port), Some(id)) = (args.next().and_then(|p| p.parse::<u16>().ok()), args.next()) else {
        eprintln!("usage: instance PORT ID [key=value]…");
        std::process::exit(2);
    };
    let labels: BTreeMap<String, String> =
        args.filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect();
    let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let greeting: Arc<str> = format!("{id} {}\n", words.join(" ")).into();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let greeting = Arc::clone(&greeting);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&greeting)));
            // A connection that breaks is the client's business; the next one starts afresh.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, greeting: Arc<str>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::POST {
        let id = request.headers().get("x-id").and_then(|id| id.to_str().ok()).unwrap_or("-");
        println!("POST {id}");
    }
    let sleep = request.uri().query().and_then(|query| query.strip_prefix("sleep=")?.parse().ok());
    // A body that breaks off is the client's business; it is answered all the same.
    let _ = request.into_body().collect().await;
    if let Some(ms) = sleep {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    Ok(Response::new(Full::new(Bytes::from(greeting.to_string()))))
}
