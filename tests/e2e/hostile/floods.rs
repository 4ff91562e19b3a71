//! Floods and stalls over HTTP/2, frame by frame. A flood ends its own connection; others go on as if nothing were.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
    asked, frame, indexed,
};
use crate::harness::h2::{H2Client, get};
use crate::harness::{Act, Proxy, Scripted, Setup, ok};

const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Writes these bytes many times, or until the proxy has had enough.
async fn flood(client: &mut Raw, bytes: &[u8], times: usize) {
    let some = bytes.repeat(64);
    for _ in 0..times.div_ceil(64) {
        let written = tokio::time::timeout(std::time::Duration::from_secs(2), client.write(&some)).await;
        if !matches!(written, Ok(true)) {
            return;
        }
    }
}

fn counted(proxy: &Proxy, name: &str) -> u64 {
    proxy.metric(name).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
}

async fn quick() -> (Scripted, Proxy) {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.write_idle = 300).start().await;
    (instance, proxy)
}

#[tokio::test]
async fn rapid_reset_ends_the_connection_within_400_requests() {
    let instance = Scripted::http(|_| Act::Hang).await;
    let proxy = Proxy::to(&[instance.address]).await;
    let mut client = Raw::connect(proxy.address).await;
    let head = asked("GET", "/", &[]);
    for stream in (1..40_000u32).step_by(2) {
        let pair = [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &head),
            frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
        ]
        .concat();
        if !client.write(&pair).await {
            break;
        }
    }
    let heard = client.hear(None).await;
    assert!(heard.ended, "{heard:?}");
    assert!(heard.goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{heard:?}");
    let streams = counted(&proxy, "pointsman_h2_streams_total");
    assert!(streams <= 400, "{streams} requests were begun");
    assert!(instance.connections() <= 50, "{} reached the instance", instance.connections());
    assert!(proxy.transitions.all().is_empty(), "nobody is blamed");
}

#[tokio::test]
async fn resets_that_the_client_makes_us_send_end_the_connection() {
    // MadeYouReset: each stream is made faulty, so that we take it back while the instance works.
    let overflow = 0x7fff_ffffu32.to_be_bytes();
    for (what, faulty) in [
        ("a window too large", frame(WINDOW_UPDATE, 0, 0, &overflow)),
        ("an increment of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("data behind the end", frame(DATA, 0, 0, b"x")),
    ] {
        let instance = Scripted::http(|_| Act::Hang).await;
        let proxy = Proxy::to(&[instance.address]).await;
        let mut client = Raw::connect(proxy.address).await;
        let head = asked("GET", "/", &[]);
        for stream in (1..20_000u32).step_by(2) {
            let mut faulty = faulty.clone();
            faulty[5..9].copy_from_slice(&stream.to_be_bytes());
            let both = [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), faulty].concat();
            if !client.write(&both).await {
                break;
            }
        }
        let heard = client.hear(None).await;
        assert!(heard.ended, "{what}: {heard:?}");
        let streams = counted(&proxy, "pointsman_h2_streams_total");
        assert!(streams <= 400, "{what}: {streams} requests were begun");
        assert!(instance.connections() <= 50, "{what}: {} reached the instance", instance.connections());
        assert!(proxy.transitions.all().is_empty(), "{what}: nobody is blamed");
    }
}

#[tokio::test]
async fn an_endless_head_ends_the_connection() {
    for (what, piece) in [
        ("full", frame(CONTINUATION, 0, 1, &super::frames::literal("x", "y".repeat(8_000)))),
        ("empty", frame(CONTINUATION, 0, 1, &[])),
        ("a byte each", frame(CONTINUATION, 0, 1, &[0x82])),
    ] {
        let (_instance, proxy) = quick().await;
        let mut client = Raw::connect(proxy.address).await;
        client.send(HEADERS, END_STREAM, 1, &asked("GET", "/", &[])).await;
        flood(&mut client, &piece, 50_000).await;
        let heard = client.hear(None).await;
        assert!(heard.ended && heard.heads == 0, "{what}: {heard:?}");
        assert_eq!(counted(&proxy, "pointsman_h2_streams_total"), 0, "{what}");
        assert_eq!(proxy.get("/").await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn frames_that_cost_an_answer_or_nothing_are_bounded_by_a_client_that_reads_or_is_cut() {
    for (what, piece) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("PRIORITY", frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("a kind nobody knows", frame(0x42, 0, 0, &[0; 64])),
    ] {
        let (_instance, proxy) = quick().await;
        let mut client = Raw::connect(proxy.address).await;
        flood(&mut client, &piece, 200_000).await;
        assert_eq!(proxy.get("/").await.status, 200, "{what}: others are served");
        assert_eq!(counted(&proxy, "pointsman_h2_streams_total"), 0, "{what}");
    }
}

#[tokio::test]
async fn answers_to_pings_that_nobody_reads_cut_the_connection() {
    let (_instance, proxy) = quick().await;
    let mut client = Raw::connect(proxy.address).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
    // The proxy stops reading when its answers do not go out, and gives up after `write_idle`.
    while client.write(&pings).await {}
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn empty_data_frames_do_not_keep_an_upload_open_for_nothing() {
    let (instance, proxy) = quick().await;
    let mut client = Raw::connect(proxy.address).await;
    client.send(HEADERS, END_HEADERS, 1, &asked("POST", "/", &[])).await;
    flood(&mut client, &frame(DATA, 0, 1, &[]), 100_000).await;
    assert_eq!(proxy.get("/").await.status, 200, "others are served");
    assert!(instance.requests().iter().all(|seen| seen.body.is_empty()));
}

#[tokio::test]
async fn a_head_that_unfolds_from_a_table_is_refused_and_costs_only_itself() {
    let (instance, proxy) = quick().await;
    let mut client = Raw::connect(proxy.address).await;
    let first = [asked("GET", "/", &[]), indexed("x", &"y".repeat(3_900))].concat();
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &first).await;
    client.hear(Some(1)).await;
    // 12,000 bytes that stand for 48 MiB.
    let bomb = [asked("GET", "/bomb", &[]), vec![0xbe; 12_000]].concat();
    client.send(HEADERS, END_HEADERS | END_STREAM, 3, &bomb).await;
    let heard = client.hear(Some(3)).await;
    assert!(heard.heads > 0 || !heard.resets.is_empty() || heard.goaway.is_some(), "{heard:?}");
    assert!(instance.requests().iter().all(|seen| !seen.line().contains("/bomb")));
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn streams_without_a_window_are_taken_back() {
    // The shorter answer is one piece, which would fit in the library.
    for (window, length) in [(0u8, 100_000), (1, 10_000), (100, 10_000), (1, 100_000)] {
        let body = "x".repeat(length);
        let instance = Scripted::http(move |_| ok(&body)).await;
        let proxy = Setup::to(&[instance.address]).limits(|limits| limits.write_idle = 300).start().await;
        let mut client = Raw::connect(proxy.address).await;
        client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]).await;
        let head = asked("GET", "/", &[]);
        for stream in (1..100u32).step_by(2) {
            client.send(HEADERS, END_HEADERS | END_STREAM, stream, &head).await;
        }
        let (mut resets, mut data) = (0, 0);
        while resets < 50 {
            match client.next().await {
                Some(frame) if frame.kind == RST_STREAM => resets += 1,
                Some(frame) if frame.kind == DATA => data += frame.payload.len(),
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(resets, 50, "every stream is given up after `write_idle`, with a window of {window}");
        assert!(data <= 50 * usize::from(window), "no more than the window");
    }
}

#[tokio::test]
async fn frames_that_no_client_may_send_end_the_connection() {
    let too_long = {
        let mut head = frame(DATA, 0, 1, &[]);
        head[..3].copy_from_slice(&[0, 0x40, 1]);
        [head, vec![0; 0x4001]].concat()
    };
    let head = asked("GET", "/", &[]);
    for (what, bytes, code) in [
        ("longer than agreed", too_long, Some(FRAME_SIZE_ERROR)),
        ("settings of an odd length", frame(SETTINGS, 0, 0, &[0; 5]), None),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[]), None),
        ("a ping of an odd length", frame(PING, 0, 0, &[0; 7]), None),
        ("an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &head), None),
        ("stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &head), None),
        ("data on a stream that never was", frame(DATA, 0, 7, b"x"), None),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &head), None),
        ("a head inside a head", [frame(HEADERS, 0, 1, &head), frame(HEADERS, 4, 3, &head)].concat(), None),
        ("a promise", frame(5, END_HEADERS, 1, &[0, 0, 0, 2]), None),
        ("padding longer than the frame", frame(HEADERS, 0x0d, 1, &[200, 0x82]), None),
        ("a broken header block", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64]), None),
        ("an index beyond the table", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xfe]), None),
        ("a table larger than agreed", frame(HEADERS, 5, 1, &[0x3f, 0xe1, 0xff, 0xff, 0x07]), None),
        ("a window beyond its most", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()), None),
    ] {
        let (instance, proxy) = quick().await;
        let mut client = Raw::connect(proxy.address).await;
        client.write(&bytes).await;
        let heard = client.hear(None).await;
        assert!(heard.ended && heard.goaway.is_some(), "{what}: {heard:?}");
        assert!(code.is_none_or(|code| heard.goaway == Some(code)), "{what}: {heard:?}");
        assert!(instance.requests().is_empty(), "{what}");
        assert_eq!(proxy.get("/").await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn a_client_that_says_half_of_what_it_must_is_cut() {
    let instance = Scripted::http(|_| ok("x")).await;
    let short = |limits: &mut pointsman::server::Limits| (limits.head, limits.keep_alive) = (200, 300);
    let proxy = Setup::to(&[instance.address]).limits(short).start().await;
    let mut preface = Raw::bare(proxy.address).await;
    preface.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n").await;
    assert!(preface.hear(None).await.ended);
    let mut idle = Raw::connect(proxy.address).await;
    assert_eq!(idle.hear(None).await.goaway, Some(0), "an idle connection is told to leave");
}

#[tokio::test]
async fn half_a_head_is_cut_after_the_time_of_a_head_wherever_it_ends() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.head = 200).start().await;
    // Without END_HEADERS; and a frame of which some is missing.
    let mut unfinished = Raw::connect(proxy.address).await;
    unfinished.send(HEADERS, END_STREAM, 1, &asked("GET", "/", &[])).await;
    assert!(unfinished.hear(None).await.ended);
    let mut missing = Raw::connect(proxy.address).await;
    missing.write(&[0, 0, 40, HEADERS, END_STREAM | END_HEADERS, 0, 0, 0, 1, 0x82]).await;
    assert!(missing.hear(None).await.ended);
    assert_eq!(
        proxy.metric("pointsman_refusals_total{reason=\"client_timeout\"}").as_deref(),
        Some("pointsman_refusals_total{reason=\"client_timeout\"} 2")
    );
    let mut idle = Raw::connect(proxy.address).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    idle.send(HEADERS, END_STREAM | END_HEADERS, 1, &asked("GET", "/", &[])).await;
    assert!(!idle.hear(Some(1)).await.ended, "a connection without a head is only idle");
}

#[tokio::test]
async fn frames_that_carry_nothing_have_a_limit() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.h2.frames = 100).start().await;
    let mut flood = Raw::connect(proxy.address).await;
    for _ in 0..300 {
        flood.send(PING, 0, 0, &[0; 8]).await;
    }
    assert_eq!(flood.hear(None).await.goaway, Some(0xb), "ENHANCE_YOUR_CALM");
    assert!(proxy.metric("pointsman_refusals_total{reason=\"h2_frames\"}").is_some());
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn windows_that_are_opened_for_nothing_have_a_limit_and_those_of_a_download_have_none() {
    let body = "x".repeat(64 * 1024);
    let instance = Scripted::http(move |_| ok(&body)).await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.h2.frames = 100).start().await;
    let mut reader = Raw::connect(proxy.address).await;
    for stream in (1..200u32).step_by(2) {
        reader.send(HEADERS, END_HEADERS | END_STREAM, stream, &asked("GET", "/", &[])).await;
        loop {
            let frame = reader.next().await.expect("it goes on");
            // As a client without patience does: both windows, after each frame, by two steps.
            let (one, rest) = (1u32.to_be_bytes(), (frame.payload.len() as u32).saturating_sub(1).to_be_bytes());
            if frame.kind == DATA && frame.payload.len() > 1 {
                for (on, by) in [(0, one), (0, rest), (stream, one), (stream, rest)] {
                    reader.send(WINDOW_UPDATE, 0, on, &by).await;
                }
            }
            if frame.kind == DATA && frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert!(proxy.metric("pointsman_refusals_total{reason=\"h2_frames\"}").is_none());
    let mut flood = Raw::connect(proxy.address).await;
    for _ in 0..300 {
        flood.send(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).await;
    }
    assert_eq!(flood.hear(None).await.goaway, Some(ENHANCE_YOUR_CALM));
    assert!(proxy.metric("pointsman_refusals_total{reason=\"h2_frames\"}").is_some());
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn resets_of_what_was_reset_before_have_a_limit() {
    let instance = Scripted::http(|_| ok("x")).await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.h2.frames = 100).start().await;
    let mut flood = Raw::connect(proxy.address).await;
    flood.send(HEADERS, END_HEADERS | END_STREAM, 1, &asked("GET", "/", &[])).await;
    for _ in 0..300 {
        flood.send(RST_STREAM, 0, 1, &8u32.to_be_bytes()).await;
    }
    assert_eq!(flood.hear(None).await.goaway, Some(ENHANCE_YOUR_CALM));
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_was_refused_and_stays_is_heard_for_a_second_and_no_longer() {
    for talks in [false, true] {
        let (_instance, proxy) = quick().await;
        let mut client = Raw::connect(proxy.address).await;
        client.write(&frame(SETTINGS, 0, 1, &[])).await;
        let heard = client.hear(None).await;
        assert!(heard.ended && heard.goaway.is_some(), "{heard:?}");
        let refused = std::time::Instant::now();
        assert_eq!(counted(&proxy, "pointsman_connections{"), 1, "the client has not closed its side");
        // The proxy has said all, and waits for the client to close too, which it does not.
        while counted(&proxy, "pointsman_connections{") > 0 {
            assert!(refused.elapsed().as_secs() < 5, "still open after {:?}", refused.elapsed());
            if talks {
                client.write(&[0; 16 * 1024]).await;
            } else {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }
}

const UPLOAD: usize = 1 << 20;

/// Uploads within the windows that it is told: the stream's begins with this one, the connection's has this room. Returns
/// the windows of streams that it was told meanwhile, and how much it had sent by then; and how much when the answer came.
async fn upload(client: &mut Raw, stream: u32, mut window: usize, all: &mut i64) -> (Vec<(usize, usize)>, usize) {
    client.send(HEADERS, END_HEADERS, stream, &asked("POST", "/", &[])).await;
    let (mut room, mut sent, mut windows) = (window as i64, 0, Vec::new());
    loop {
        while sent < UPLOAD && room.min(*all) >= 16_384 {
            sent += 16_384;
            room -= 16_384;
            *all -= 16_384;
            let end = if sent == UPLOAD { END_STREAM } else { 0 };
            assert!(client.send(DATA, end, stream, &[b'x'; 16_384]).await);
        }
        let frame = client.next().await.expect("it goes on");
        let value = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
        match frame.kind {
            WINDOW_UPDATE if frame.stream == stream => room += i64::from(value(0)),
            WINDOW_UPDATE if frame.stream == 0 => *all += i64::from(value(0)),
            SETTINGS if frame.flags == 0 => {
                // Told by its number, 4.
                let told = frame.payload.chunks(6).position(|setting| setting[..2] == [0, 4]);
                if let Some(told) = told.map(|at| value(at * 6 + 2) as usize) {
                    // What is under way counts against the new one (RFC 9113, 6.9.2).
                    room += told as i64 - window as i64;
                    window = told;
                    windows.push((told, sent));
                }
                client.send(SETTINGS, 1, 0, &[]).await;
            }
            HEADERS => return (windows, sent),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_client_that_uploads_gets_a_wider_window_until_memory_is_short() {
    const NARROW: usize = 64 * 1024;
    const WIDE: usize = 256 * 1024;
    let instance = Scripted::echo().await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.memory = 1 << 30).start().await;
    let mut client = Raw::connect(proxy.address).await;
    let mut all = 65_535;
    let (windows, sent) = upload(&mut client, 1, 65_535, &mut all).await;
    assert_eq!(sent, UPLOAD);
    let told: Vec<usize> = windows.iter().map(|(window, _)| *window).collect();
    assert_eq!(told, [NARROW, WIDE]);
    assert!(windows[1].1 >= 128 * 1024, "only who has uploaded: {windows:?}");
    // Between 80 and 85 %: nobody is refused yet.
    proxy.memory().set_limit(proxy.memory().held() * 100 / 82);
    let (windows, sent) = upload(&mut client, 3, WIDE, &mut all).await;
    assert_eq!(sent, UPLOAD);
    assert_eq!(windows.first().map(|(window, _)| *window), Some(NARROW), "{windows:?}");
}

#[tokio::test]
async fn what_the_library_refuses_is_counted() {
    let instance = Scripted::http(|_| Act::Hang).await;
    let proxy = Setup::to(&[instance.address]).limits(|limits| limits.h2.streams = 2).start().await;
    let refused = |count: u32| format!("pointsman_refusals_total{{reason=\"h2_stream\"}} {count}");
    let mut client = Raw::connect(proxy.address).await;
    for stream in [1, 3, 5, 7] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &asked("GET", "/", &[])).await;
    }
    proxy.counts(&refused(2)).await;
    assert!(proxy.metric("pointsman_h2_streams_total").unwrap().ends_with(" 2"), "those go on");

    // A head above the size is answered by the library: 431.
    let builder = h2::client::Builder::new();
    let client = H2Client::with(proxy.address, &builder).await;
    let mut large = get("/");
    (0..9).for_each(|n| {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        large.headers_mut().insert(name, "y".repeat(8 * 1024).parse().unwrap());
    });
    assert_eq!(client.send(large).await.unwrap().status, 431);
    proxy.counts(&refused(3)).await;
}
