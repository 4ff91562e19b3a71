//! Who waits for a place at an instance: nobody is forgotten.

use std::time::{Duration, Instant};

use pointsman::engine::time::Millis;

use crate::harness::{Client, ONE_POOL, Proxy, Scripted, Setup, read_request, soon};
use crate::ports::unused;

const GET: &str = "GET / HTTP/1.1\r\nhost: shop\r\n\r\n";

/// Answers once it is told to.
pub async fn held(told: tokio::sync::watch::Receiver<bool>) -> Scripted {
    Scripted::raw(move |mut stream, _| {
        let mut told = told.clone();
        async move {
            use tokio::io::AsyncWriteExt;
            let mut read = Vec::new();
            while read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                let _ = told.wait_for(|go| *go).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
            }
        }
    })
    .await
}

fn limited(wait: &str) -> String {
    format!("{ONE_POOL}overload: {{instance: 1, queue: 4, wait: {wait}}}\n")
}

/// Sends a request that waits behind so many others.
async fn waits(proxy: &Proxy, behind: u32) -> Client {
    let mut client = proxy.client().await;
    client.send(GET).await;
    soon("a place in the line", async {
        while proxy.waiting() <= behind {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    client
}

#[tokio::test]
async fn a_request_from_before_the_limit_calls_those_who_wait() {
    let (go, told) = tokio::sync::watch::channel(false);
    let instance = held(told).await;
    let proxy = Setup { workers: 2, ..Setup::to(&[instance.address]) }.start().await;
    let mut before = proxy.client().await;
    before.send(GET).await;
    soon("the request", async {
        while proxy.live(0).in_flight() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    proxy.publish(&Setup::to(&[instance.address]).rules(&limited("9s")));
    let mut first = waits(&proxy, 0).await;
    let mut second = waits(&proxy, 1).await;
    let asked = Instant::now();
    go.send_replace(true);
    for client in [&mut before, &mut first, &mut second] {
        assert_eq!(client.reply().await.status, 200);
    }
    assert!(asked.elapsed() < Duration::from_secs(5), "nobody waited for his time to be over: {:?}", asked.elapsed());
}

#[tokio::test]
async fn who_gives_up_looks_once_more_and_calls_the_next() {
    let (go, told) = tokio::sync::watch::channel(true);
    let instance = held(told).await;
    let proxy = Setup::to(&[instance.address]).rules(&limited("4s")).start().await;
    // A place that is taken and given back without a word to the line.
    let live = proxy.live(0);
    live.begin();
    let mut first = waits(&proxy, 0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut second = waits(&proxy, 1).await;
    live.abandon();
    assert_eq!((first.reply().await.status, second.reply().await.status), (200, 200));
    assert_eq!(proxy.waiting(), 0);
    drop(go);
}

#[tokio::test]
async fn who_leaves_the_line_leaves_his_turn_to_the_next() {
    let (go, told) = tokio::sync::watch::channel(false);
    let instance = held(told).await;
    let proxy = Setup { workers: 2, ..Setup::to(&[instance.address]) }.rules(&limited("9s")).start().await;
    let mut busy = proxy.client().await;
    busy.send(GET).await;
    soon("the request", async {
        while proxy.live(0).in_flight() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let leaving = waits(&proxy, 0).await;
    let mut staying = waits(&proxy, 1).await;
    drop(leaving);
    go.send_replace(true);
    let asked = Instant::now();
    assert_eq!((busy.reply().await.status, staying.reply().await.status), (200, 200));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    proxy.rests().await;
    assert_eq!(proxy.waiting(), 0);
}

#[tokio::test]
async fn after_a_failed_probe_the_chosen_pool_is_tried_before_the_next_one() {
    let gone = unused();
    let (chosen, third) = (Scripted::echo().await, Scripted::echo().await);
    let rules = "service: web\npools: {first: id == web-0, second: id == web-1, third: id == web-2}\n\
                 retry: {attempts: 2}\nrules: [{name: all, to: [first, second, third]}]\n";
    let addresses = [gone, chosen.address, third.address];
    let proxy = Setup::to(&addresses).rules(rules).start().await;
    assert!(proxy.live(0).eject(Millis(0), 1).is_some(), "its time is over: a request may prove it");
    proxy.publish(&Setup::to(&addresses).rules(rules));
    assert_eq!(proxy.get("/").await.status, 200);
    assert!(proxy.metric("pointsman_probes_total{service=\"web\",result=\"failure\"} 1").is_some());
    assert_eq!((chosen.requests().len(), third.requests().len()), (1, 0));
}
