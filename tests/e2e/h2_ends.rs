//! How streams of instances begin and end: bodies that are none, instances that take no streams.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};

use crate::harness::h2::{H2Client, H2Reply, collect, instance, with};
use crate::harness::{Proxy, Setup, instance as named, soon};

/// One instance that is labelled as speaking HTTP/2; with an access log.
async fn to(address: std::net::SocketAddr) -> Proxy {
    let instances = vec![named("web-0", address, &[("proto", "h2c")])];
    Setup { instances, logs: true, ..Setup::default() }.start().await
}

async fn ask(client: &H2Client, method: Method, path: &str) -> H2Reply {
    let request = Request::builder().method(method).uri(format!("http://shop{path}")).body(()).unwrap();
    let (answer, _) = client.start(request, true).await;
    collect(soon("the head", answer).await.unwrap()).await.unwrap()
}

/// Answers with the status that the path names, and ends the stream with an empty frame of data; for `/open/` never.
async fn ending_late() -> crate::harness::Scripted {
    let (instance, _) = instance(|request, mut respond, _| async move {
        let path = request.uri().path().to_owned();
        let status: u16 = path.rsplit('/').next().unwrap().parse().unwrap();
        let mut sink = respond.send_response(Response::builder().status(status).body(()).unwrap(), false).unwrap();
        if path.starts_with("/open/") {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        sink.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    instance
}

#[tokio::test]
async fn an_answer_without_a_body_whose_end_comes_in_a_frame_of_its_own_is_whole() {
    let instance = ending_late().await;
    let proxy = to(instance.address).await;
    let over_h2 = H2Client::connect(proxy.address).await;
    let mut asked = 0;
    for (method, status) in [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304), ("GET", 200)] {
        for from in ["/", "/open/"] {
            if (method, status, from) == ("GET", 200, "/open/") {
                continue;
            }
            let mut client = proxy.client().await;
            client.send(format!("{method} {from}{status} HTTP/1.1\r\nhost: shop\r\n\r\n")).await;
            let reply = client.reply_to(method).await;
            assert_eq!((reply.status, reply.whole), (status, true), "{method} {from}");
            let reply = ask(&over_h2, method.parse().unwrap(), &format!("{from}{status}")).await;
            assert_eq!((reply.status, reply.body.len()), (status, 0), "{method} {from}");
            asked += 2;
        }
    }
    for line in proxy.logged(asked).await {
        assert!(line["status"].is_u64() && line["detail"].is_null(), "{line}");
    }
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn an_instance_that_takes_no_streams_is_not_dialled_again_and_again() {
    let builder = h2::server::Builder::new().max_concurrent_streams(0).clone();
    let (instance, heads) = with(builder, |_, _, _| async {}).await;
    let proxy = to(instance.address).await;
    let asked = Instant::now();
    let reply = proxy.get("/").await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (502, Some("connect_failed")));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(instance.connections() <= 3, "one for each try at most: {}", instance.connections());
    assert!(heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_instances_take_back_is_counted() {
    let (instance, _) = instance(|request, mut respond, _| async move {
        if request.uri().path() == "/reset" {
            return respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        respond.send_response(Response::new(()), true).unwrap();
    })
    .await;
    let proxy = to(instance.address).await;
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(proxy.ask("POST /reset HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n").await.status, 502);
    let leaving = crate::harness::Scripted::raw(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
            connection.graceful_shutdown();
        }
    })
    .await;
    let other = to(leaving.address).await;
    assert_eq!(other.get("/").await.status, 200);
    for (proxy, name) in [(&proxy, "resets"), (&other, "goaways")] {
        let wanted = format!("pointsman_upstream_h2_{name}_total{{worker=\"0\"}} 1");
        proxy.counts(&wanted).await;
    }
}
