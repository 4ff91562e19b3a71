//! How many connections there are to an instance, and how long idle ones are kept; how much comes in by a listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pointsman::server::Listen;
use tokio::io::AsyncWriteExt;

use crate::harness::{ANY, Act, Client, Scripted, Setup, ok, read_request, soon};

/// An instance that takes its time, and how many connections to it were open at most.
async fn unhurried(takes: Duration) -> (Scripted, Arc<AtomicUsize>) {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    let instance = Scripted::raw(move |mut stream, _| {
        let (open, highest) = (Arc::clone(&open), Arc::clone(&highest));
        async move {
            highest.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            let mut read = Vec::new();
            while read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                tokio::time::sleep(takes).await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx").await.is_err() {
                    break;
                }
            }
            open.fetch_sub(1, SeqCst);
        }
    })
    .await;
    (instance, most)
}

#[tokio::test]
async fn an_instance_has_no_more_connections_than_it_may_over_all_workers() {
    let (instance, most) = unhurried(Duration::from_millis(2)).await;
    let mut setup = Setup::to(&[instance.address]).settings(|settings| settings.max_connections = 2);
    setup.workers = 2;
    setup.rules.push_str("timeout: {connect: 8s}\n");
    let proxy = Arc::new(setup.start().await);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move {
                let mut client = proxy.client().await;
                for _ in 0..10 {
                    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
                    assert_eq!(client.reply().await.status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    // The instance may see a new one before the end of the one that made room for it.
    let most = most.load(SeqCst);
    assert!((1..=4).contains(&most), "{most} at once");
    assert!(proxy.seats() <= 2);
}

#[tokio::test]
async fn a_worker_gives_up_the_idle_connection_that_another_one_wants() {
    let (instance, most) = unhurried(Duration::ZERO).await;
    let mut setup = Setup::to(&[instance.address]).settings(|settings| settings.max_connections = 1);
    setup.workers = 2;
    let proxy = setup.start().await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(proxy.client().await);
    }
    let started = Instant::now();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
    }
    let worker = |at| proxy.metric(&format!("pointsman_upstream_connections_opened_total{{worker=\"{at}\"}}"));
    assert!(worker(0).is_some() && worker(1).is_some(), "both workers had clients");
    assert!(started.elapsed() < Duration::from_secs(8), "nobody waited out his time: {:?}", started.elapsed());
    assert!(most.load(SeqCst) <= 2);
    assert!(proxy.seats() <= 1);
}

#[tokio::test]
async fn with_all_connections_in_use_a_request_goes_elsewhere_or_is_refused() {
    let hanging = || Scripted::http(|seen| if seen.line().contains("/hang") { Act::Hang } else { ok("here") });
    let (first, second) = (hanging().await, hanging().await);
    let rules =
        "service: web\npools: {all: id exists}\nrules:\n  - name: all\n    to: [all]\ntimeout: {connect: 200ms}\n";
    let one = |settings: &mut pointsman::forward::Settings| settings.max_connections = 1;
    let proxy = Setup::to(&[first.address]).rules(rules).settings(one).start().await;
    let mut hung = proxy.client().await;
    hung.send("GET /hang HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    soon("the request", async {
        while first.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = proxy.get("/").await;
    assert_eq!((refused.status, refused.field("x-pointsman-error").as_deref()), (503, Some("overloaded")));
    assert!(proxy.transitions.all().is_empty(), "it says nothing about the instance");
    drop(hung);
    assert_eq!(proxy.get("/").await.status, 200);

    let proxy = Setup::to(&[first.address, second.address]).rules(rules).settings(one).start().await;
    let mut hung = proxy.client().await;
    hung.send("GET /hang HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    for _ in 0..8 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn an_idle_connection_to_an_instance_is_kept_for_as_long_as_is_set() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).settings(|settings| settings.upstream_idle = Some(300)).start().await;
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(instance.connections(), 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(instance.connections(), 2, "the idle one was given up");
}

#[tokio::test]
async fn a_listener_carries_so_many_requests_at_once() {
    let instance = Scripted::http(|seen| if seen.line().contains("/hang") { Act::Hang } else { ok("x") }).await;
    let mut busy = Listen::plain(ANY);
    busy.entrance.requests = 1;
    let mut setup = Setup::to(&[instance.address])
        .listen(vec![busy, Listen::plain(ANY)])
        .settings(|settings| settings.exempt_paths = vec!["/health".into()]);
    setup.workers = 2;
    let proxy = setup.start().await;
    let mut hung = Client::connect(proxy.addresses[0]).await;
    hung.send("GET /hang HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    soon("the request", async {
        while instance.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let get = async |at: usize, path: &str| {
        let mut client = Client::connect(proxy.addresses[at]).await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n")).await;
        client.reply().await
    };
    let refused = get(0, "/").await;
    assert_eq!((refused.status, refused.field("x-pointsman-error").as_deref()), (503, Some("overloaded")));
    assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
    assert_eq!(get(0, "/health").await.status, 200, "exempt paths go past it");
    assert_eq!(get(1, "/").await.status, 200, "the other listener has its own");
    assert_eq!(
        proxy.metric("pointsman_shed_total{limit=\"listener\"}").as_deref(),
        Some("pointsman_shed_total{limit=\"listener\"} 1")
    );
    drop(hung);
    soon("room again", async {
        while get(0, "/").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
