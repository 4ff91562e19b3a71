//! Clients and instances over HTTP/2 in the clear.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Scripted, soon};

/// A client's connection.
pub struct H2Client {
    pub sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct H2Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl H2Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().unwrap())
    }
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &h2::client::Builder::new()).await
    }

    pub async fn with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Sends a head; its body is up to the caller.
    pub async fn start(&self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = soon("room for a stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, ends).unwrap()
    }

    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<H2Reply, h2::Error> {
        let (head, body) = request.into_parts();
        let (answer, mut stream) = self.start(Request::from_parts(head, ()), body.is_empty()).await;
        if !body.is_empty() {
            write(&mut stream, &body, true).await?;
        }
        collect(soon("an answer's head", answer).await?).await
    }

    pub async fn get(&self, target: &str) -> H2Reply {
        self.send(get(target)).await.unwrap()
    }
}

/// GET with the authority `shop`.
pub fn get(target: &str) -> Request<Vec<u8>> {
    Request::get(format!("http://shop{target}")).body(Vec::new()).unwrap()
}

/// POST with the authority `shop`.
pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    Request::post(format!("http://shop{target}")).body(body.into()).unwrap()
}

/// Writes as the peer's window allows.
pub async fn write(stream: &mut SendStream<Bytes>, mut body: &[u8], ends: bool) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = soon("a window", std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.ok_or(Reason::STREAM_CLOSED)??.min(body.len());
        stream.send_data(Bytes::copy_from_slice(&body[..room]), ends && room == body.len())?;
        body = &body[room..];
    }
    Ok(())
}

/// Reads a body to its end.
pub async fn read(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = soon("a piece", stream.data()).await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, soon("trailers", stream.trailers()).await?))
}

pub async fn collect(response: Response<RecvStream>) -> Result<H2Reply, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let (body, trailers) = read(&mut stream).await?;
    Ok(H2Reply { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// What an instance got.
pub type Heads = Arc<Mutex<Vec<Request<()>>>>;

/// An instance that hands each request over, with the number of its connection.
pub async fn instance<F: Future<Output = ()> + Send + 'static>(
    act: impl Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> F + Clone + Send + 'static,
) -> (Scripted, Heads) {
    with(h2::server::Builder::new().enable_connect_protocol().clone(), act).await
}

/// As `instance`, with settings.
pub async fn with<F: Future<Output = ()> + Send + 'static>(
    builder: h2::server::Builder,
    act: impl Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> F + Clone + Send + 'static,
) -> (Scripted, Heads) {
    let heads = Heads::default();
    let all = Arc::clone(&heads);
    let scripted = Scripted::raw(move |stream, number| {
        let (builder, act, all) = (builder.clone(), act.clone(), Arc::clone(&all));
        async move {
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            let mut open = tokio::task::JoinSet::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                all.lock().unwrap().push(copy(&request));
                open.spawn(act(request, respond, number));
            }
        }
    })
    .await;
    (scripted, heads)
}

/// An instance that echoes method, path and body, with a trailer.
pub async fn echo() -> (Scripted, Heads) {
    instance(|request, mut respond, _| async move {
        let (head, mut body) = request.into_parts();
        let Ok((body, trailers)) = read(&mut body).await else { return };
        let text = format!("{} {} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
        let mut sink = respond.send_response(Response::new(()), false).unwrap();
        sink.send_data(text.into(), false).unwrap();
        let mut end = HeaderMap::new();
        end.insert("x-end", "done".parse().unwrap());
        if let Some(sent) = trailers.as_ref().and_then(|trailers| trailers.get("x-sent")) {
            end.insert("x-sent", sent.clone());
        }
        sink.send_trailers(end).unwrap();
    })
    .await
}

fn copy(request: &Request<RecvStream>) -> Request<()> {
    let mut copied = Request::new(());
    *copied.method_mut() = request.method().clone();
    *copied.uri_mut() = request.uri().clone();
    *copied.headers_mut() = request.headers().clone();
    *copied.extensions_mut() = request.extensions().clone();
    copied
}
