//! Second tries beside slow first ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::harness::{Act, ONE_POOL, Proxy, Scripted, Setup, read_request, soon, status};

const SLOW: Duration = Duration::from_millis(1_500);

/// Answers after this long; counts its requests.
async fn after(delay: Duration, seen: &Arc<AtomicUsize>) -> Scripted {
    let seen = Arc::clone(seen);
    Scripted::raw(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let mut read = Vec::new();
            while read_request(&mut stream, &mut read, 0, 0).await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(delay).await;
                let answer = if delay == SLOW { "slow" } else { "fast" };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{answer}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A pool of a slow and a fast instance, with these lines below its rules.
async fn mixed(more: &str) -> (Proxy, [Arc<AtomicUsize>; 2], [Scripted; 2]) {
    let seen: [Arc<AtomicUsize>; 2] = Default::default();
    let instances = [after(SLOW, &seen[0]).await, after(Duration::ZERO, &seen[1]).await];
    let addresses = [instances[0].address, instances[1].address];
    let rules = format!("{ONE_POOL}balance: random\n{more}");
    (Setup::to(&addresses).rules(&rules).start().await, seen, instances)
}

fn hedges(proxy: &Proxy, result: &str) -> u64 {
    let start = format!("pointsman_hedges_total{{service=\"web\",rule=\"all\",result=\"{result}\"}}");
    proxy.metric(&start).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_slow_instance_is_not_waited_for() {
    let (proxy, seen, _instances) = mixed("hedge: {after: 50ms}\n").await;
    let mut times = Vec::new();
    for _ in 0..40 {
        let asked = Instant::now();
        assert_eq!(proxy.get("/").await.text(), "fast");
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    assert!(times[39] < SLOW - Duration::from_millis(300), "p99 {:?}", times[39]);
    let slow = seen[0].load(Ordering::SeqCst) as u64;
    assert!(slow > 5, "half of the requests are drawn for the slow one: {slow}");
    // A pause of the machine may hedge a fast one, too, or send a hedge before the slow one has read what it was asked.
    let (sent, won) = (hedges(&proxy, "sent"), hedges(&proxy, "won"));
    assert!(won <= sent && won.abs_diff(slow) <= 2 && sent.abs_diff(slow) <= 4, "{sent} sent, {won} won, {slow} slow");
    assert!(proxy.transitions.all().is_empty(), "a try that was cancelled is no evidence");
    let cancelled =
        proxy.metric("pointsman_upstream_attempts_total{service=\"web\",pool=\"all\",result=\"cancelled\"}");
    let cancelled: u64 = cancelled.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(cancelled, sent, "one of the two each time");
}

#[tokio::test]
async fn only_what_is_safe_to_repeat_is_hedged() {
    let (proxy, seen, _instances) = mixed("hedge: {after: 20ms}\n").await;
    for _ in 0..8 {
        let post = "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(proxy.ask(post).await.status, 200);
        if seen[0].load(Ordering::SeqCst) > 0 {
            break;
        }
    }
    assert_eq!(hedges(&proxy, "sent"), 0);
}

#[tokio::test]
async fn hedges_spend_the_retry_budget() {
    let (proxy, ..) = mixed("hedge: {after: 5ms}\nretry: {budget: 0%}\n").await;
    let mut asked = tokio::task::JoinSet::new();
    // More slow ones than the 50 that are always allowed.
    for _ in 0..160 {
        let address = proxy.address;
        asked.spawn(async move {
            let mut client = crate::harness::Client::connect(address).await;
            client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            client.reply().await.status
        });
    }
    while let Some(answered) = asked.join_next().await {
        assert_eq!(answered.unwrap(), 200);
    }
    assert_eq!(hedges(&proxy, "sent"), 50);
    assert!(hedges(&proxy, "budget") > 0);
}

#[tokio::test]
async fn a_bad_answer_does_not_win_and_counts_against_its_instance() {
    let seen: Arc<AtomicUsize> = Arc::default();
    let slow = after(Duration::from_millis(300), &seen).await;
    let bad = Scripted::http(|_| status(503)).await;
    let rules = format!("{ONE_POOL}hedge: {{after: 30ms}}\neject: {{consecutive_5xx: 3}}\n");
    let proxy = Setup::to(&[slow.address, bad.address]).rules(&rules).start().await;
    for _ in 0..12 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    assert!(proxy.transitions.all().iter().any(|(id, _)| id == "web-1"), "{:?}", proxy.transitions.all());
}

#[tokio::test]
async fn a_try_has_its_own_limit() {
    let (proxy, seen, _instances) = mixed("retry: {per_try: 300ms}\n").await;
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(proxy.get("/").await.text(), "fast");
        assert!(asked.elapsed() < SLOW, "{:?}", asked.elapsed());
    }
    assert!(seen[0].load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn a_try_that_lost_or_that_the_client_gave_up_is_none_that_its_instance_is_judged_by() {
    let (proxy, seen, _instances) = mixed("hedge: {after: 30ms}\n").await;
    while seen[0].load(Ordering::SeqCst) < 4 {
        assert_eq!(proxy.get("/").await.text(), "fast");
    }
    proxy.rests().await;
    assert_eq!(proxy.live(0).ended(), 0, "all of them lost");
    assert_eq!(proxy.live(1).ended() as usize, seen[1].load(Ordering::SeqCst));

    let stuck = Scripted::http(|_| Act::Hang).await;
    let proxy = Proxy::to(&[stuck.address]).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    soon("the request", async {
        while stuck.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(client);
    proxy.rests().await;
    assert_eq!(proxy.live(0).ended(), 0, "no answer that did not come is a good one");
}

#[tokio::test]
async fn what_an_instance_carries_is_learnt_from_its_own_time_and_not_from_errors() {
    let seen: Arc<AtomicUsize> = Arc::default();
    let (slow, fast) = (after(SLOW, &seen).await, after(Duration::ZERO, &seen).await);
    let rules = format!("{ONE_POOL}balance: random\nhedge: {{after: 200ms}}\noverload: {{instance: adaptive}}\n");
    let proxy = Setup::to(&[slow.address, fast.address]).rules(&rules).start().await;
    for _ in 0..24 {
        assert_eq!(proxy.get("/").await.text(), "fast");
    }
    let base = proxy.live(1).adaptive.gradient().base;
    assert!(base > 0.0 && base < 50_000.0, "about half of the tries won 200 ms after the first began: {base} us");

    let turn = AtomicUsize::new(0);
    let instance = Scripted::raw(move |mut stream, _| {
        let fails = turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move {
            read_request(&mut stream, &mut Vec::new(), 0, 0).await;
            let answer: &[u8] = if fails {
                b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            } else {
                tokio::time::sleep(Duration::from_millis(40)).await;
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            };
            let _ = stream.write_all(answer).await;
        }
    })
    .await;
    let rules =
        format!("{ONE_POOL}retry: {{attempts: 1}}\neject: {{enforce: false}}\noverload: {{instance: adaptive}}\n");
    let proxy = Setup::to(&[instance.address]).rules(&rules).start().await;
    for turn in 0..40 {
        assert_eq!(proxy.get("/").await.status, if turn % 2 == 0 { 503 } else { 200 });
    }
    let base = proxy.live(0).adaptive.gradient().base;
    assert!(base >= 38_000.0, "errors come at once, and carry nothing: {base} us");
}

/// Answers each request with this head after that long.
async fn late(delay: Duration, head: &'static str) -> Scripted {
    Scripted::raw(move |mut stream, _| async move {
        let mut read = Vec::new();
        while read_request(&mut stream, &mut read, 0, 0).await.is_some() {
            tokio::time::sleep(delay).await;
            if stream.write_all(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_trial_that_failed_beside_its_hedge_is_counted() {
    // It fails while its hedge, sent before, is still under way; the hedge answers well.
    let sick = late(Duration::from_millis(200), "503 No").await;
    let well = late(Duration::from_millis(600), "200 OK").await;
    let rules = format!(
        "{ONE_POOL}hedge: {{after: 20ms}}\neject: {{consecutive_5xx: 1, base_ejection_time: 100ms, max_ejection_time: 100ms}}\n"
    );
    let proxy = Setup::to(&[sick.address, well.address]).rules(&rules).start().await;
    let failed = || proxy.metric("pointsman_probes_total{service=\"web\",result=\"failure\"}");
    for _ in 0..12 {
        assert_eq!(proxy.get("/").await.status, 200);
        proxy.publish_health();
        if failed().is_some() {
            return;
        }
    }
    panic!("{:?} and no trial failed: {:?}", proxy.transitions.all(), proxy.metric("pointsman_probes_total"));
}
