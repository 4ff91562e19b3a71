//! Bytes that are passed on unread: plain TCP by listener, TLS by the name in the client's greeting.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pointsman::engine::time::Millis;
use pointsman::server::Listen;
use pointsman::server::passthrough::Passes;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::pki::{Authority, greet};
use crate::harness::{ANY, Proxy, Scripted, Setup, instance, soon};
use crate::ports::unused;

const BY_NAME: &str = "service: web\nhosts: [a.test, \"*.b.test\", db.test]\npools: {a: colour == blue, b: colour == \
    green}\nrules:\n  - name: blue\n    when: tls.sni == a.test or host == db.test\n    to: [a, b]\n  - name: green\n    to: [b]\n";

/// An instance that ends TLS itself, with a certificate for any of these names, and says who it is.
async fn tls_instance(authority: &Authority, says: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (cert, key) = authority.issue(&["a.test", "x.b.test", "other.test"]).der();
    let config = builder.with_no_client_auth().with_single_cert(vec![cert], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut asked = vec![0u8; 64];
                let n = stream.read(&mut asked).await?;
                stream.write_all(format!("{says} {}", String::from_utf8_lossy(&asked[..n])).as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
    (address, accepting)
}

async fn site(passes: Passes, blue: SocketAddr, green: SocketAddr) -> Proxy {
    let mut setup = Setup::to(&[]).rules(BY_NAME).limits(|limits| limits.tls_handshake = 3_000);
    setup.logs = true;
    setup.instances =
        vec![instance("blue", blue, &[("colour", "blue")]), instance("green", green, &[("colour", "green")])];
    setup.listen(vec![Listen { passes: Some(passes), ..Listen::plain(ANY) }]).start().await
}

async fn ask(proxy: &Proxy, authority: &Authority, name: &str) -> Option<String> {
    let mut client = greet(&Arc::new(authority.trusted()), proxy.address, name).await.ok()?;
    client.send("hello").await;
    let mut answer = String::new();
    soon("an answer", client.stream.read_to_string(&mut answer)).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn tls_is_passed_on_by_the_name_it_asks_for_and_a_dead_instance_is_passed_over() {
    let authority = Authority::new();
    let (blue, blue_task) = tls_instance(&authority, "blue").await;
    let (green, _green_task) = tls_instance(&authority, "green").await;
    let proxy = site(Passes::Sni, blue, green).await;
    assert_eq!(ask(&proxy, &authority, "a.test").await.as_deref(), Some("blue hello"));
    assert_eq!(ask(&proxy, &authority, "x.b.test").await.as_deref(), Some("green hello"));
    assert_eq!(ask(&proxy, &authority, "other.test").await, None, "no rule file claims it");
    assert!(proxy.metric("pointsman_requests_total{service=\"web\",rule=\"blue\",pool=\"a\"").is_some());
    blue_task.abort();
    let _ = blue_task.await;
    for _ in 0..8 {
        assert_eq!(
            ask(&proxy, &authority, "a.test").await.as_deref(),
            Some("green hello"),
            "no client sees the failure"
        );
    }
    let ejected = proxy.transitions.all();
    assert!(ejected.iter().any(|(id, _)| id == "blue"), "{ejected:?}");
}

#[tokio::test]
async fn what_is_no_tls_or_says_nothing_is_refused_and_counted() {
    let behind = Scripted::echo().await;
    let proxy = site(Passes::Sni, behind.address, behind.address).await;
    let mut rubbish = TcpStream::connect(proxy.address).await.unwrap();
    rubbish.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut silent = TcpStream::connect(proxy.address).await.unwrap();
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    for stream in [&mut rubbish, &mut silent] {
        // A reset counts as an end.
        let _ = soon("the end", stream.read_to_end(&mut Vec::new())).await;
    }
    for reason in ["passthrough_malformed", "passthrough_timeout"] {
        let wanted = format!("pointsman_refusals_total{{reason=\"{reason}\"}} 1");
        soon(&wanted, async {
            while proxy.metric(&wanted).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert_eq!(behind.connections(), 0);
}

/// Says who it is, then gives back what it was sent.
async fn mirroring(says: &'static str) -> Scripted {
    Scripted::raw(move |mut stream, _| async move {
        stream.write_all(says.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// What comes back for these bytes, sent in pieces of so many; empty: the connection was closed.
async fn mirrored(proxy: &Proxy, bytes: &[u8], each: usize) -> String {
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    let mut sent = Ok(());
    for piece in bytes.chunks(each) {
        // What is refused is refused before the last of it.
        sent = sent.and(client.write_all(piece).await);
        tokio::time::sleep(Duration::from_millis(u64::from(each < bytes.len()))).await;
    }
    let _ = client.shutdown().await;
    let mut back = Vec::new();
    let _ = soon("the end", client.read_to_end(&mut back)).await;
    let said = back.strip_suffix(bytes).unwrap_or(b"something else");
    if back.is_empty() { String::new() } else { String::from_utf8_lossy(said).into_owned() }
}

/// The bytes with which rustls begins.
fn greeted_by_rustls(name: &str) -> Vec<u8> {
    let config = Arc::new(Authority::new().trusted());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// A list under a length of two bytes.
fn list(items: &[u8]) -> Vec<u8> {
    [&u16::try_from(items.len()).unwrap().to_be_bytes()[..], items].concat()
}

/// The extension that asks for this name.
fn names(name: &str) -> Vec<u8> {
    let entry = [&[0], &list(name.as_bytes())[..]].concat();
    [&[0, 0], &list(&list(&entry))[..]].concat()
}

/// A greeting of TLS 1.0 as clients of 2008 sent it: no signature algorithms, no versions.
fn old_greeting(extensions: Option<&[u8]>) -> Vec<u8> {
    let ciphers = list(&[0xc0, 0x13, 0, 0x2f, 0, 0x0a]);
    let extensions = extensions.map(list).unwrap_or_default();
    let hello = [&[3, 1][..], &[7; 32], &[0], &ciphers, &[1, 0], &extensions].concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &hello].concat();
    [&[22, 3, 1][..], &list(&message)].concat()
}

#[tokio::test]
async fn a_greeting_in_many_records_and_segments_is_passed_on_as_it_came() {
    let (blue, green) = (mirroring("blue").await, mirroring("green").await);
    let proxy = site(Passes::Sni, blue.address, green.address).await;
    for (name, reached) in [("a.test", "blue"), ("x.b.test", "green")] {
        let whole = greeted_by_rustls(name);
        let in_records: Vec<u8> =
            whole[5..].chunks(29).flat_map(|part| [&[22, 3, 1][..], &list(part)].concat()).collect();
        for bytes in [&whole, &in_records] {
            for each in [7, 64, bytes.len()] {
                assert_eq!(mirrored(&proxy, bytes, each).await, reached, "{name} in pieces of {each}");
            }
        }
        // What a client sends behind its greeting is nobody's to read here.
        assert_eq!(mirrored(&proxy, &[&whole[..], b"\x17\x03\x03early"].concat(), whole.len()).await, reached);
    }
}

#[tokio::test]
async fn a_greeting_of_an_old_version_goes_where_its_name_says() {
    let (blue, green) = (mirroring("blue").await, mirroring("green").await);
    let proxy = site(Passes::Sni, blue.address, green.address).await;
    for (bytes, reached) in [
        (old_greeting(Some(&names("A.test"))), "blue"),
        (old_greeting(Some(&names("x.b.test."))), "green"),
        // Nobody has rules for no name.
        (old_greeting(Some(&[])), ""),
        (old_greeting(None), ""),
        (old_greeting(Some(&names("127.0.0.1"))), ""),
    ] {
        assert_eq!(mirrored(&proxy, &bytes, bytes.len()).await, reached, "{}", bytes.escape_ascii());
    }
    assert_eq!(proxy.metric("pointsman_refusals_total{reason=\"passthrough_malformed\"}"), None);
    let anybody = Setup::to(&[blue.address]);
    let listen = Listen { passes: Some(Passes::Sni), ..Listen::plain(ANY) };
    let proxy = anybody.listen(vec![listen]).start().await;
    let bytes = old_greeting(None);
    assert_eq!(mirrored(&proxy, &bytes, bytes.len()).await, "blue", "these rules are for every host, and for none");
}

#[tokio::test]
async fn a_greeting_that_could_be_read_in_two_ways_is_refused_and_counted() {
    let behind = mirroring("blue").await;
    let proxy = site(Passes::Sni, behind.address, behind.address).await;
    let two_names = [[0].as_slice(), &list(b"a.test"), &[0], &list(b"x.b.test")].concat();
    let refused = [
        old_greeting(Some(&[names("a.test"), names("x.b.test")].concat())),
        old_greeting(Some(&[&[0, 0], &list(&list(&two_names))[..]].concat())),
        old_greeting(Some(&names(""))),
        old_greeting(Some(&names("a.test\0"))),
        [&[0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16][..], &[7; 40]].concat(),
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff".to_vec(),
    ];
    for bytes in &refused {
        assert_eq!(mirrored(&proxy, bytes, bytes.len()).await, "", "{}", bytes.escape_ascii());
    }
    let wanted = format!("pointsman_refusals_total{{reason=\"passthrough_malformed\"}} {}", refused.len());
    soon(&wanted, async {
        while proxy.metric(&wanted).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(behind.connections(), 0);
}

#[tokio::test]
async fn tcp_goes_to_the_host_of_its_listener_and_an_end_is_passed_on() {
    let reversing = Scripted::raw(|mut stream, _| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        let _ = stream.write_all(&all).await;
    })
    .await;
    let closed = unused();
    let proxy = site(Passes::Host("db.test".into()), closed, reversing.address).await;
    for _ in 0..3 {
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(b"stressed").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "desserts", "the end of one side ends only that side");
    }
}

#[tokio::test]
async fn a_drain_waits_for_what_is_passed_on_then_cuts_and_counts_it() {
    let holding = holding("hello").await;
    let proxy = site(Passes::Host("db.test".into()), holding.address, holding.address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"x").await.unwrap();
    soon("a greeting", client.read_exact(&mut [0; 5])).await.unwrap();
    let (drained, logged) = proxy.drain_logged(Duration::from_millis(200), 1).await;
    assert_eq!(drained.cut, 1);
    assert_eq!(
        (&logged[0]["detail"], &logged[0]["bytes_in"], &logged[0]["bytes_out"]),
        (&"draining".into(), &1.into(), &5.into())
    );
    assert!(!matches!(soon("the end", client.read(&mut [0; 8])).await, Ok(1..)));
}

/// Says who it is, then holds the connection.
async fn holding(says: &'static str) -> Scripted {
    Scripted::raw(move |mut stream, _| async move {
        stream.write_all(says.as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// What an instance says to a new connection at once; empty: the connection was closed.
async fn greeting(proxy: &Proxy) -> (TcpStream, String) {
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let mut said = [0; 16];
    let n = soon("a greeting", client.read(&mut said)).await.unwrap_or(0);
    (client, String::from_utf8_lossy(&said[..n]).into_owned())
}

/// A listener for `db.test`, which goes to blue, then to green.
async fn two(more: &str, blue: SocketAddr, green: SocketAddr) -> Proxy {
    let passes = Some(Passes::Host("db.test".into()));
    ground(more, blue, green).listen(vec![Listen { passes, ..Listen::plain(ANY) }]).start().await
}

fn ground(more: &str, blue: SocketAddr, green: SocketAddr) -> Setup {
    let instances =
        vec![instance("blue", blue, &[("colour", "blue")]), instance("green", green, &[("colour", "green")])];
    Setup { instances, ..Setup::default() }.rules(&format!("{BY_NAME}{more}"))
}

#[tokio::test]
async fn what_is_passed_on_takes_a_place_at_its_instance() {
    let (blue, green) = (holding("blue").await, holding("green").await);
    let proxy = two("overload: {instance: 1, queue: 0}\n", blue.address, green.address).await;
    let (first, said) = greeting(&proxy).await;
    assert_eq!(said, "blue");
    let (_second, said) = greeting(&proxy).await;
    assert_eq!(said, "green", "blue is full");
    assert_eq!(greeting(&proxy).await.1, "", "both are");
    assert!(proxy.metric("pointsman_limited_total{service=\"web\",rule=\"blue\",limit=\"instance\"}").is_some());
    drop(first);
    soon("the place", async {
        while proxy.live(0).in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(greeting(&proxy).await.1, "blue");
}

#[tokio::test]
async fn a_connection_that_fails_goes_elsewhere_only_where_the_rules_want_it() {
    let (gone, green) = (unused(), holding("green").await);
    let proxy = two("retry: {on: [503]}\n", gone, green.address).await;
    assert_eq!(greeting(&proxy).await.1, "");
    assert_eq!(green.connections(), 0);
    let proxy = two("retry: {on: [connect]}\n", gone, green.address).await;
    assert_eq!(greeting(&proxy).await.1, "green");
}

#[tokio::test]
async fn an_ejected_instance_that_was_the_last_resort_of_a_connection_is_taken_back() {
    let (blue, gone) = (holding("blue").await, unused());
    let proxy = two("", blue.address, gone).await;
    assert!(proxy.live(0).eject(Millis(600_000), 60_000).is_some());
    proxy.publish(&ground("", blue.address, gone));
    assert_eq!(greeting(&proxy).await.1, "blue");
    assert!(proxy.live(0).available(), "it has proved itself");
    assert!(proxy.metric("pointsman_last_resorts_total{service=\"web\",result=\"success\"} 1").is_some());
}

/// Its next close is a reset.
fn forget(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn what_the_instance_tears_is_torn_for_the_client() {
    let tearing = Scripted::raw(|mut stream, _| async move {
        stream.write_all(b"half of it").await.unwrap();
        let _ = stream.read(&mut [0; 8]).await;
        forget(&stream);
    })
    .await;
    let proxy = site(Passes::Host("db.test".into()), tearing.address, tearing.address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    soon("the half", client.read_exact(&mut [0; 10])).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let end = soon("the end", client.read(&mut [0; 8])).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "it is no end in peace");
    let logged = proxy.logged(1).await;
    assert_eq!((&logged[0]["detail"], &logged[0]["bytes_out"]), (&"upstream_reset".into(), &10.into()));
    assert!(proxy.metric("pointsman_errors_total{service=\"web\",detail=\"upstream_reset\"} 1").is_some());
}

#[tokio::test]
async fn what_the_client_tears_is_torn_for_the_instance() {
    let (told, mut ends) = tokio::sync::mpsc::channel(1);
    let instance = Scripted::raw(move |mut stream, _| {
        let told = told.clone();
        async move {
            stream.write_all(b"go on").await.unwrap();
            let end = stream.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
            let _ = told.send(end).await;
        }
    })
    .await;
    let proxy = site(Passes::Host("db.test".into()), instance.address, instance.address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    soon("a word", client.read_exact(&mut [0; 5])).await.unwrap();
    client.write_all(b"half of it").await.unwrap();
    forget(&client);
    drop(client);
    assert_eq!(soon("the end", ends.recv()).await.unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    let logged = proxy.logged(1).await;
    assert_eq!(logged[0]["detail"], "client_closed");
    assert!(proxy.live(0).available());
}

#[tokio::test]
async fn an_answer_that_ends_before_its_request_is_whole_to_the_client() {
    // It closes with something unread: the system says an end, and then a reset.
    let hasty = Scripted::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1]).await;
        stream.write_all(b"enough").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let proxy = site(Passes::Host("db.test".into()), hasty.address, hasty.address).await;
    for _ in 0..20 {
        let (mut reading, mut writing) = TcpStream::connect(proxy.address).await.unwrap().into_split();
        let sending = tokio::spawn(async move { while writing.write_all(&[0; 1_000]).await.is_ok() {} });
        let mut answer = vec![0; 6];
        soon("the answer", reading.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, b"enough");
        sending.abort();
    }
    assert!(proxy.live(0).available());
}

#[tokio::test]
async fn an_instance_that_takes_connections_and_tears_them_is_ejected() {
    let tearing = Scripted::raw(|stream, _| async move { forget(&stream) }).await;
    let green = holding("green").await;
    let proxy = two("", tearing.address, green.address).await;
    soon("its ejection", async {
        while proxy.live(0).available() {
            greeting(&proxy).await;
        }
    })
    .await;
    proxy.publish_health();
    assert_eq!(greeting(&proxy).await.1, "green");
    assert!(proxy.live(1).available());
}
