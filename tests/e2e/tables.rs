//! What a request does with the table in force, and what is counted.

use std::time::Duration;

use crate::harness::{Act, Proxy, Scripted, Setup, ok, read_request, soon};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn the_next_request_follows_a_published_table() {
    let old = Scripted::http(|_| ok("old")).await;
    let new = Scripted::http(|_| ok("new")).await;
    let proxy = Proxy::to(&[old.address]).await;
    let mut client = proxy.client().await;
    for (published, expected) in [(None, "old"), (Some(new.address), "new"), (Some(old.address), "old")] {
        if let Some(address) = published {
            proxy.publish(&Setup::to(&[address]));
        }
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), expected);
    }
}

#[tokio::test]
async fn idle_connections_to_an_instance_that_left_are_closed() {
    let (gone, left) = tokio::sync::oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let old = Scripted::raw(move |mut stream, _| {
        let gone = gone.lock().unwrap().take();
        async move {
            let mut read = Vec::new();
            while read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
            let _ = gone.map(|gone| gone.send(()));
        }
    })
    .await;
    let proxy = Proxy::to(&[old.address]).await;
    assert_eq!(proxy.get("/").await.status, 200);
    proxy.publish(&Setup::to(&[]));
    soon("the end of the idle connection", left).await.unwrap();
}

#[tokio::test]
async fn a_request_is_counted_where_it_went() {
    let instance = Scripted::http(|seen| if seen.line().contains("hang") { Act::Hang } else { ok("hello") }).await;
    let proxy = Proxy::to(&[instance.address]).await;
    proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
    let mut leaving = proxy.client().await;
    leaving.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n").await;
    soon("the second request", async {
        while instance.requests().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(proxy.metric("pointsman_in_flight").as_deref(), Some("pointsman_in_flight{worker=\"0\"} 1.0"));
    drop(leaving);
    soon("the end of the second", async {
        while !proxy.metric("pointsman_in_flight").unwrap().ends_with(" 0.0") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let page = proxy.metrics.render();
    let counted = |status: &str| {
        page.lines().any(|line| {
            line.starts_with("pointsman_requests_total{service=\"web\",rule=\"all\",pool=\"all\"")
                && line.contains(&format!("status=\"{status}\""))
                && line.ends_with(" 1")
        })
    };
    assert!(counted("2xx") && counted("4xx"), "{page}");
    for exact in [
        "pointsman_request_bytes_total{service=\"web\",rule=\"all\",pool=\"all\"} 2",
        "pointsman_response_bytes_total{service=\"web\",rule=\"all\",pool=\"all\"} 5",
    ] {
        assert!(page.lines().any(|line| line == exact), "{exact}\n{page}");
    }
}
