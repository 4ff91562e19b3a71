//! What a flood over HTTP/2 costs in memory: hardly anything, whatever it is made of.

use std::time::{Duration, Instant};

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
    asked, frame, indexed,
};
use crate::limits::resident;
use crate::support::binary::Proxy;
use crate::support::site::Site;

const RULES: &str = "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";
/// What the goal allows.
const MOST_KIB: u64 = 4 * 1024;
/// How long one flood goes on at most.
const LASTS: Duration = Duration::from_secs(3);

/// One flood: what is said once, then again and again.
struct Flood {
    what: &'static str,
    first: Vec<u8>,
    piece: Vec<u8>,
    times: usize,
}

fn again(what: &'static str, first: Vec<u8>, piece: &[u8], times: usize) -> Flood {
    Flood { what, first, piece: piece.repeat(64), times: times / 64 }
}

/// A head and something more for each of many streams.
fn streams(what: &'static str, count: u32, more: impl Fn(u32) -> Vec<u8>) -> Flood {
    let head = asked("GET", "/", &[]);
    let each = |at: u32| [frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &head), more(2 * at + 1)].concat();
    Flood { what, first: Vec::new(), piece: (0..count).flat_map(each).collect(), times: 1 }
}

fn floods() -> Vec<Flood> {
    let opened = |flags| frame(HEADERS, flags, 1, &asked("POST", "/", &[]));
    let table = [asked("GET", "/", &[]), indexed("x", &"y".repeat(3_900))].concat();
    let table = frame(HEADERS, END_HEADERS | END_STREAM, 1, &table);
    let bomb = [asked("GET", "/", &[]), vec![0xbe; 12_000]].concat();
    let bombs = (1..200).flat_map(|at| frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &bomb)).collect();
    vec![
        streams("rapid reset", 20_000, |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())),
        streams("windows too large", 20_000, |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes())),
        streams("data behind the end", 20_000, |stream| frame(DATA, 0, stream, b"x")),
        again("PING", Vec::new(), &frame(PING, 0, 0, &[0; 8]), 400_000),
        again("SETTINGS", Vec::new(), &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), 400_000),
        again("PRIORITY", Vec::new(), &frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1]), 400_000),
        again("WINDOW_UPDATE", Vec::new(), &frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()), 400_000),
        again("unknown frames", Vec::new(), &frame(0x42, 0, 0, &[0; 64]), 400_000),
        again("empty DATA", opened(END_HEADERS), &frame(DATA, 0, 1, &[]), 400_000),
        again("an endless head", opened(0), &frame(CONTINUATION, 0, 1, &indexed("x", &"y".repeat(8_000))), 50_000),
        again("a head of nothing", opened(0), &frame(CONTINUATION, 0, 1, &[]), 400_000),
        Flood { what: "heads that unfold", first: table, piece: bombs, times: 1 },
    ]
}

async fn suffer(proxy: &Proxy, flood: &Flood) -> u64 {
    let mut client = Raw::connect(proxy.listen).await;
    let mut most = resident(proxy);
    client.write(&flood.first).await;
    let began = Instant::now();
    'flood: for _ in 0..flood.times {
        for some in flood.piece.chunks(16 * 1024) {
            let written = tokio::time::timeout(LASTS, client.write(some)).await;
            most = most.max(resident(proxy));
            if !matches!(written, Ok(true)) || began.elapsed() > LASTS {
                break 'flood;
            }
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_over_http2_costs_no_memory_to_speak_of() {
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let proxy = site.proxy(&["--workers", "1"]).await;
    // What is taken once by whatever a connection may do is no flood's cost.
    for _ in 0..20 {
        let mut client = Raw::connect(proxy.listen).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &asked("GET", "/", &[])).await;
        assert_eq!(client.hear(Some(1)).await.heads, 1);
    }
    for flood in floods() {
        let before = resident(&proxy);
        let most = suffer(&proxy, &flood).await;
        let grown = most.saturating_sub(before);
        println!("{}: {grown} KiB", flood.what);
        assert!(grown <= MOST_KIB, "{}: {before} KiB grew by {grown} KiB", flood.what);
        let mut good = Raw::connect(proxy.listen).await;
        good.send(HEADERS, END_HEADERS | END_STREAM, 1, &asked("GET", "/", &[])).await;
        assert_eq!(good.hear(Some(1)).await.heads, 1, "{}: others are served", flood.what);
    }
}
