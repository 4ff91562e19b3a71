//! More than may come: rates, requests at once, queues, storms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{Act, Client, ONE_POOL, Scripted, Setup, ok, soon, status};

const GET: &str = "GET / HTTP/1.1\r\nhost: shop\r\n\r\n";

/// Statuses of so many requests, one after the other on one connection.
async fn statuses(client: &mut Client, count: usize, request: &str) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..count {
        client.send(request).await;
        all.push(client.reply().await.status);
    }
    all
}

#[tokio::test]
async fn a_rate_lets_its_burst_in_and_tells_when_to_come_back() {
    let instance = Scripted::echo().await;
    let rules = format!("{ONE_POOL}    limit: {{rate: 6/m, burst: 5}}\n");
    let proxy = Setup { workers: 2, ..Setup::to(&[instance.address]).rules(&rules) }.start().await;
    let mut all = Vec::new();
    // Connections land on both workers; the rate is the process's.
    for _ in 0..4 {
        all.extend(statuses(&mut proxy.client().await, 3, GET).await);
    }
    assert_eq!(all, [vec![200; 5], vec![429; 7]].concat());
    let refused = proxy.get("/").await;
    assert_eq!(refused.field("x-pointsman-error").as_deref(), Some("rate_limited"));
    assert_eq!(refused.field("ratelimit-policy").as_deref(), Some("\"all\";q=5;w=50"));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((8..=10).contains(&wait), "{wait}");
    assert_eq!(refused.field("ratelimit"), Some(format!("\"all\";r=0;t={wait}")));
    assert_eq!(instance.requests().len(), 5);
    let counted = proxy.metric("pointsman_limited_total{service=\"web\",rule=\"all\",limit=\"rate\"}").unwrap();
    assert!(counted.ends_with(" 8"), "{counted}");
}

#[tokio::test]
async fn a_reload_gives_nobody_new_tokens_and_keys_have_their_own() {
    let instance = Scripted::echo().await;
    let rules = format!("{ONE_POOL}    limit: {{rate: 1/m, burst: 2, key: header.x-key}}\n");
    let setup = Setup::to(&[instance.address]).rules(&rules);
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let by = |key: &str| format!("GET / HTTP/1.1\r\nhost: shop\r\nx-key: {key}\r\n\r\n");
    let mut client = proxy.client().await;
    assert_eq!(statuses(&mut client, 3, &by("a")).await, [200, 200, 429]);
    assert_eq!(statuses(&mut client, 3, &by("b")).await, [200, 200, 429]);
    assert_eq!(statuses(&mut client, 3, GET).await, [200, 200, 429], "those without a key share a bucket");
    proxy.publish(&setup);
    assert_eq!(statuses(&mut client, 1, &by("a")).await, [429]);
    let changed = rules.replace("burst: 2", "burst: 3");
    proxy.publish(&Setup::to(&[instance.address]).rules(&changed));
    assert_eq!(statuses(&mut client, 4, &by("a")).await, [200, 200, 200, 429], "a changed limit begins anew");
}

#[tokio::test]
async fn requests_at_once_are_counted_until_their_answer_ends() {
    let (go, told) = tokio::sync::watch::channel(false);
    let instance = held(told).await;
    let rules = format!("{ONE_POOL}limit: {{concurrency: 2}}\n");
    let proxy = Setup { workers: 2, ..Setup::to(&[instance.address]).rules(&rules) }.start().await;
    let mut busy = Vec::new();
    for at in 0..2 {
        let mut client = proxy.client().await;
        client.send(GET).await;
        soon("the request", async {
            while instance.connections() <= at {
                tokio::task::yield_now().await;
            }
        })
        .await;
        busy.push(client);
    }
    let refused = proxy.get("/").await;
    assert_eq!((refused.status, refused.field("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(refused.field("x-pointsman-error").as_deref(), Some("overloaded"));
    go.send_replace(true);
    for client in &mut busy {
        assert_eq!(client.reply().await.status, 200);
    }
    assert_eq!(statuses(&mut proxy.client().await, 3, GET).await, [200, 200, 200]);
}

/// Answers once it is told to.
async fn held(told: tokio::sync::watch::Receiver<bool>) -> Scripted {
    Scripted::raw(move |mut stream, _| {
        let mut told = told.clone();
        async move {
            use tokio::io::AsyncWriteExt;
            let mut read = Vec::new();
            while crate::harness::read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                let _ = told.wait_for(|go| *go).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
            }
        }
    })
    .await
}

/// Sends requests on so many connections until `time` is over, none faster than `pause` apart on one connection.
/// Statuses and times of all.
async fn offer(address: std::net::SocketAddr, clients: usize, time: Duration, pause: Duration) -> Vec<(u16, Duration)> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(async move {
            let (mut all, mut client) = (Vec::new(), Client::connect(address).await);
            let started = Instant::now();
            while started.elapsed() < time {
                let asked = Instant::now();
                client.send(GET).await;
                all.push((client.reply().await.status, asked.elapsed()));
                tokio::time::sleep(pause.saturating_sub(asked.elapsed())).await;
            }
            all
        });
    }
    let mut all = Vec::new();
    while let Some(some) = tasks.join_next().await {
        all.extend(some.unwrap());
    }
    all
}

#[tokio::test]
async fn a_retry_storm_is_impossible() {
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(Scripted::http(|_| status(503)).await);
    }
    let addresses: Vec<_> = instances.iter().map(|instance| instance.address).collect();
    // Nobody is ejected, so that every request has somewhere to be tried again.
    let rules = format!("{ONE_POOL}eject: {{enforce: false}}\n");
    let proxy = Setup { workers: 2, ..Setup::to(&addresses).rules(&rules) }.start().await;
    let started = Instant::now();
    let answers = offer(proxy.address, 20, Duration::from_secs(4), Duration::from_millis(20)).await;
    let seconds = started.elapsed().as_secs_f64();
    let offered = answers.len();
    assert!(answers.iter().all(|(status, _)| *status == 503));
    let attempts: usize = instances.iter().map(|instance| instance.requests().len()).sum();
    let most = offered as f64 * 1.2 + 3.0 * seconds + 50.0;
    assert!(offered > 200, "{offered}");
    assert!(attempts as f64 <= most, "{attempts} attempts for {offered} requests in {seconds} s, at most {most}");
    assert!(attempts > offered + 49, "what the budget allows is used: {attempts} for {offered}");
    let refused = proxy.metric("pointsman_retries_refused_total{service=\"web\",reason=\"budget\"}");
    assert!(refused.is_some());
    drop(Arc::new(instances));
}

#[tokio::test]
async fn an_instance_that_asks_for_a_pause_is_not_asked_again_and_its_wish_is_passed_on() {
    let busy = |_: &crate::harness::Seen| {
        Act::Write(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_vec())
    };
    let (one, two) = (Scripted::http(busy).await, Scripted::http(busy).await);
    let proxy = Setup::to(&[one.address, two.address]).start().await;
    let reply = proxy.get("/").await;
    assert_eq!((reply.status, reply.field("retry-after").as_deref()), (503, Some("7")));
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1), "three tries were allowed");
    let well = Scripted::http(|_| ok("well")).await;
    let proxy = Setup::to(&[one.address, well.address]).start().await;
    for _ in 0..5 {
        assert_eq!(proxy.get("/").await.text(), "well");
    }
}
