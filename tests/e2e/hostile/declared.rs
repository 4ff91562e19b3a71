//! Bodies that are not as long as they were said to be, and requests that name no host.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::harness::{Proxy, Scripted, Setup};

#[tokio::test]
async fn a_client_that_sends_more_or_less_than_it_declared_harms_only_itself() {
    let instance = Scripted::echo().await;
    let proxy = Setup::to(&[instance.address]).settings(|settings| settings.patience.idle = 200).start().await;
    // More: the body ends where it was said to, and what is over is no request.
    let mut client = proxy.client().await;
    client.send("POST /more HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcdef\x00 /smuggled\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "POST /more HTTP/1.1 abc");
    assert_eq!(client.reply().await.status, 400);
    assert!(client.is_closed().await);
    // Less, and then silence; less, and then the end, in both framings.
    for body in ["content-length: 10\r\n\r\nfour", "transfer-encoding: chunked\r\n\r\na\r\nfour"] {
        let mut silent = proxy.client().await;
        silent.send(format!("POST /less HTTP/1.1\r\nhost: a\r\n{body}")).await;
        assert_eq!(silent.reply().await.status, 408, "{body}");
        assert!(silent.is_closed().await);
        let mut gone = proxy.client().await;
        gone.send(format!("POST /less HTTP/1.1\r\nhost: a\r\n{body}")).await;
        let _ = gone.stream.shutdown().await;
        let status = gone.reply().await.status;
        assert!([0, 400].contains(&status), "{body}: {status}");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let whole: Vec<String> = instance.requests().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(whole, ["POST /more HTTP/1.1"], "no instance has seen a whole request that was none");
    assert!(proxy.transitions.all().is_empty(), "nobody is blamed");
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn a_request_without_a_host_reaches_the_instance_under_the_instances_own() {
    let instance = Scripted::echo().await;
    let proxy = Proxy::to(&[instance.address]).await;
    assert_eq!(proxy.ask("GET /x HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(instance.requests()[0].field("host"), Some(instance.address.to_string()));
    assert_eq!(proxy.ask("GET /x HTTP/1.1\r\n\r\n").await.status, 400, "HTTP/1.1 has to name one");
}
