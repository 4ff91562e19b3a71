//! More than may come: rates, requests at once, queues, storms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{Act, Client, ONE_POOL, Proxy, Reply, Scripted, Setup, ok, soon, status};

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
async fn a_rule_may_keep_the_rate_to_itself() {
    let instance = Scripted::echo().await;
    let edits = "headers: {response: {remove: [ratelimit], set: {ratelimit-policy: ask}}}";
    let rules = format!("{ONE_POOL}    limit: {{rate: 6/m, burst: 1}}\n    {edits}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let told = |reply: &Reply| ["ratelimit", "ratelimit-policy", "retry-after"].map(|name| reply.field(name));
    let reply = proxy.get("/").await;
    assert_eq!((reply.status, told(&reply)), (200, [None, Some("ask".to_owned()), None]));
    // The proxy's own errors are not edited; when to come back is told all the same.
    let refused = proxy.get("/").await;
    assert!(refused.status == 429 && matches!(told(&refused), [None, None, Some(_)]), "{}", refused.head);
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
    let (started, mut offered, mut rate) = (Instant::now(), 0, 0.0);
    // 1,000 a second: 100 clients that ask every 100 ms. A machine that is busy with something else gets more rounds.
    for _ in 0..4 {
        let round = Instant::now();
        let answers = offer(proxy.address, 100, Duration::from_secs(4), Duration::from_millis(100)).await;
        rate = answers.len() as f64 / round.elapsed().as_secs_f64();
        offered += answers.len();
        assert!(answers.iter().all(|(status, _)| *status == 503));
        let seconds = started.elapsed().as_secs_f64();
        let attempts: usize = instances.iter().map(|instance| instance.requests().len()).sum();
        let most = offered as f64 * 1.2 + 3.0 * seconds + 50.0;
        assert!(attempts as f64 <= most, "{attempts} attempts for {offered} requests in {seconds} s, at most {most}");
        assert!(attempts as f64 >= offered as f64 * 1.15, "the budget is used: {attempts} for {offered}");
        if rate >= 900.0 {
            break;
        }
    }
    assert!(rate >= 500.0, "{rate} requests a second are no storm");
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

/// Carries four requests at once, 40 ms each; what comes above that waits, as in a program with four threads.
async fn four_at_once() -> Scripted {
    let threads = Arc::new(tokio::sync::Semaphore::new(4));
    Scripted::raw(move |mut stream, _| {
        let threads = Arc::clone(&threads);
        async move {
            use tokio::io::AsyncWriteExt;
            let mut read = Vec::new();
            while crate::harness::read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                let thread = threads.acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(40)).await;
                drop(thread);
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn twice_what_it_carries_costs_no_goodput_and_the_rest_is_told_at_once() {
    let instance = four_at_once().await;
    let rules = format!("{ONE_POOL}overload: {{instance: 4, queue: 8, wait: 150ms}}\n");
    let proxy = Setup { workers: 2, ..Setup::to(&[instance.address]).rules(&rules) }.start().await;
    let time = Duration::from_secs(3);
    let good = |all: &[(u16, Duration)]| all.iter().filter(|(status, _)| *status == 200).count();
    // Four clients, one after the other each: the peak.
    let peak = good(&offer(proxy.address, 4, time, Duration::ZERO).await);
    // 20 clients that ask every 100 ms: 200 a second, twice what four threads of 40 ms carry.
    let all = offer(proxy.address, 20, time, Duration::from_millis(100)).await;
    let served = good(&all);
    // Collapse would be a small part of it; the rest is room for a machine that pauses in one of the two windows.
    assert!(served * 10 >= peak * 7, "{served} served of {} offered, {peak} at the peak", all.len());
    let mut refused: Vec<Duration> = all.iter().filter(|(status, _)| *status == 503).map(|(_, took)| *took).collect();
    assert!(refused.len() * 4 > all.len(), "{} refused of {}", refused.len(), all.len());
    refused.sort_unstable();
    assert!(refused[refused.len() / 2] < Duration::from_millis(200), "{:?}", refused[refused.len() / 2]);
    assert!(all.iter().all(|(status, _)| matches!(status, 200 | 503)));
    for result in ["served", "full"] {
        let start = format!("pointsman_queued_total{{service=\"web\",rule=\"all\",result=\"{result}\"}}");
        assert!(proxy.metric(&start).is_some(), "{result}");
    }
}

/// A client whose request the instance holds.
async fn held_at(proxy: &Proxy, instance: &Scripted) -> Client {
    let mut client = proxy.client().await;
    client.send(GET).await;
    soon("the request", async {
        while instance.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client
}

#[tokio::test]
async fn who_waits_is_served_in_turn_and_not_for_ever() {
    let (go, told) = tokio::sync::watch::channel(false);
    let instance = held(told).await;
    let rules = format!("{ONE_POOL}overload: {{instance: 1, queue: 2, wait: 5s}}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let mut busy = held_at(&proxy, &instance).await;
    let mut waiting = Vec::new();
    for at in 1..=2 {
        let mut client = proxy.client().await;
        client.send(GET).await;
        soon("a place in the line", async {
            while proxy.waiting() < at {
                tokio::task::yield_now().await;
            }
        })
        .await;
        waiting.push(client);
    }
    let refused = proxy.get("/").await;
    assert_eq!((refused.status, refused.field("x-pointsman-error").as_deref()), (503, Some("overloaded")));
    go.send_replace(true);
    assert_eq!(busy.reply().await.status, 200);
    for client in &mut waiting {
        assert_eq!(client.reply().await.status, 200);
    }
    assert_eq!(proxy.waiting(), 0);

    let (_stuck, told) = tokio::sync::watch::channel(false);
    let instance = held(told).await;
    let rules = format!("{ONE_POOL}overload: {{instance: 1, queue: 2, wait: 100ms}}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let _busy = held_at(&proxy, &instance).await;
    let asked = Instant::now();
    assert_eq!(proxy.get("/").await.status, 503);
    assert!(asked.elapsed() >= Duration::from_millis(80), "{:?}", asked.elapsed());
    assert_eq!(proxy.waiting(), 0);
}

#[tokio::test]
async fn a_full_instance_is_passed_over_for_one_with_room() {
    let (_stuck, told) = tokio::sync::watch::channel(false);
    let (full, free) = (held(told).await, Scripted::echo().await);
    let rules = format!("{ONE_POOL}balance: random\noverload: {{instance: 1}}\n");
    let proxy = Setup::to(&[full.address, free.address]).rules(&rules).start().await;
    let mut stuck = Vec::new();
    while full.connections() == 0 {
        let mut client = proxy.client().await;
        client.send(GET).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        stuck.push(client);
    }
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    assert_eq!(full.connections(), 1);
}

#[tokio::test]
async fn a_full_pool_hands_over_to_the_next_one_of_the_rule() {
    let (_stuck, told) = tokio::sync::watch::channel(false);
    let (full, free) = (held(told).await, Scripted::echo().await);
    let rules = "service: web\npools: {first: id == web-0, other: id == web-1}\n\
                 overload: {instance: 1, queue: 0}\nrules: [{name: all, to: [first, other]}]\n";
    let proxy = Setup::to(&[full.address, free.address]).rules(rules).start().await;
    let mut stuck = proxy.client().await;
    stuck.send(GET).await;
    soon("the request", async {
        while full.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    assert_eq!(full.connections(), 1);
}

#[tokio::test]
async fn the_process_sheds_what_it_does_not_carry_but_for_health_paths() {
    let (go, told) = tokio::sync::watch::channel(false);
    let instance = held(told).await;
    let proxy = Setup { workers: 2, ..Setup::to(&[instance.address]) }
        .settings(|settings| {
            settings.requests = 1;
            settings.exempt_paths = vec!["/healthz".into()];
        })
        .start()
        .await;
    let mut busy = held_at(&proxy, &instance).await;
    let shed = proxy.get("/").await;
    assert_eq!((shed.status, shed.field("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(proxy.get("/healthzz").await.status, 503);
    let mut health = proxy.client().await;
    health.send("GET /healthz/deep HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    go.send_replace(true);
    assert_eq!((busy.reply().await.status, health.reply().await.status), (200, 200));
    assert!(proxy.metric("pointsman_shed_total{limit=\"requests\"}").is_some_and(|line| line.ends_with(" 2")));
}

#[tokio::test]
async fn an_adaptive_limit_falls_with_a_slow_instance_and_sheds() {
    let slow = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&slow);
    let instance = Scripted::raw(move |mut stream, _| {
        let flag = Arc::clone(&flag);
        async move {
            use tokio::io::AsyncWriteExt;
            let mut read = Vec::new();
            while crate::harness::read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                let slow = flag.load(std::sync::atomic::Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(if slow { 200 } else { 10 })).await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let rules = format!("{ONE_POOL}overload: {{instance: adaptive, queue: 0}}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    let before = offer(proxy.address, 8, Duration::from_secs(1), Duration::from_millis(5)).await;
    assert!(before.iter().all(|(status, _)| *status == 200), "8 at once are below what it starts with");
    slow.store(true, std::sync::atomic::Ordering::SeqCst);
    let after = offer(proxy.address, 16, Duration::from_secs(3), Duration::from_millis(20)).await;
    assert!(after.iter().any(|(status, _)| *status == 503), "twenty times as slow, it is given less at once");
}
