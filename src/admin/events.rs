//! `GET /v1/events`: the recent ones, or a stream of server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};

use crate::observe::events::{Event, Events, KEPT};

use super::Admin;

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    after: Option<u64>,
    limit: Option<usize>,
}

/// Recent events, newest last; with `Accept: text/event-stream` a stream that begins after `Last-Event-ID` or `?after=`.
pub async fn show(State(admin): State<Admin>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("accept").is_some_and(|accept| accept.contains("text/event-stream")) {
        let last = text("last-event-id").and_then(|id| id.parse().ok());
        return stream(&admin.events, last.or(asked.after));
    }
    let events = admin.events.recent(asked.after.unwrap_or(0), asked.limit.unwrap_or(200).min(KEPT));
    Json(json!({ "events": events })).into_response()
}

fn stream(events: &Arc<Events>, after: Option<u64>) -> Response {
    // Subscribed first, so that nothing falls between what is kept and what comes; ids tell what was sent already.
    let receiver = events.subscribe();
    let missed = after.map_or_else(Vec::new, |after| events.recent(after, KEPT));
    let (sender, frames) = mpsc::channel(64);
    // Ends with its client: sending fails once the body is dropped, at the latest with the next comment line.
    tokio::spawn(feed(receiver, missed, sender));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(Frames(frames))).into_response()
}

/// A comment line at least this often, so that a client that went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

async fn feed(mut events: broadcast::Receiver<Arc<Event>>, missed: Vec<Arc<Event>>, out: mpsc::Sender<Bytes>) {
    let mut last = 0;
    for event in missed {
        last = event.id;
        if out.send(frame(&event)).await.is_err() {
            return;
        }
    }
    loop {
        let line = match tokio::time::timeout(KEEP_ALIVE, events.recv()).await {
            Ok(Ok(event)) if event.id <= last => continue,
            Ok(Ok(event)) => frame(&event),
            Ok(Err(broadcast::error::RecvError::Lagged(lost))) => Bytes::from(format!(": {lost} events were lost\n\n")),
            Ok(Err(broadcast::error::RecvError::Closed)) => return,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        if out.send(line).await.is_err() {
            return;
        }
    }
}

fn frame(event: &Event) -> Bytes {
    // JSON holds no line break, so one data line is enough.
    let data = serde_json::to_string(event).unwrap_or_default();
    Bytes::from(format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind.word()))
}

struct Frames(mpsc::Receiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
