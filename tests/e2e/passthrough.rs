//! Bytes that are passed on unread: plain TCP by listener, TLS by the name in the client's greeting.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pointsman::engine::time::Millis;
use pointsman::server::Listen;
use pointsman::server::passthrough::Passes;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::pki::{Authority, greet};
use crate::harness::{ANY, Proxy, Scripted, Setup, instance, soon};

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
    let mut setup = Setup::to(&[]).rules(BY_NAME).limits(|limits| limits.tls_handshake = 300);
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

#[tokio::test]
async fn tcp_goes_to_the_host_of_its_listener_and_an_end_is_passed_on() {
    let reversing = Scripted::raw(|mut stream, _| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        let _ = stream.write_all(&all).await;
    })
    .await;
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
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
    let holding = Scripted::raw(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let proxy = site(Passes::Host("db.test".into()), holding.address, holding.address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"x").await.unwrap();
    soon("the connection", async {
        while holding.connections() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(proxy.drain(Duration::from_millis(200)).await.cut, 1);
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

async fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
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
    let (gone, green) = (closed_port().await, holding("green").await);
    let proxy = two("retry: {on: [503]}\n", gone, green.address).await;
    assert_eq!(greeting(&proxy).await.1, "");
    assert_eq!(green.connections(), 0);
    let proxy = two("retry: {on: [connect]}\n", gone, green.address).await;
    assert_eq!(greeting(&proxy).await.1, "green");
}

#[tokio::test]
async fn an_ejected_instance_that_was_the_last_resort_of_a_connection_is_taken_back() {
    let (blue, gone) = (holding("blue").await, closed_port().await);
    let proxy = two("", blue.address, gone).await;
    assert!(proxy.live(0).eject(Millis(600_000), 60_000).is_some());
    proxy.publish(&ground("", blue.address, gone));
    assert_eq!(greeting(&proxy).await.1, "blue");
    assert!(proxy.live(0).available(), "it has proved itself");
    assert!(proxy.metric("pointsman_last_resorts_total{service=\"web\",result=\"success\"} 1").is_some());
}
