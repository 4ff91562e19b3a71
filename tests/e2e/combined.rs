//! Parts of the edge together, in the order in which a connection meets them: a PROXY head, TLS, HTTP/2 or bytes that
//! are passed on, and the same towards instances.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::engine::upstream::UpstreamTls;
use pointsman::server::Listen;
use pointsman::server::passthrough::Passes;
use pointsman::server::tls::{Terminator, TlsSettings};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::pki::Authority;
use crate::harness::{ANY, Client, Proxy, Scripted, Setup, soon};

const ANNOUNCED: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.7 5000 443\r\n";
const BY_CLIENT: &str = "service: web\npools: {all: id exists}\nrules:\n  - name: theirs\n    when: client.ip in \
    [203.0.113.0/24] and scheme == https and tls.sni == a.test\n    to: [all]\n    headers: {response: {set: \
    {strict-transport-security: max-age=31536000}}}\n  - name: others\n    respond: {status: 403}\n";

fn trusting(setup: Setup) -> Setup {
    setup.settings(|settings| settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
}

/// TLS on a connection that a proxy in front has announced.
async fn announced(config: ClientConfig, address: SocketAddr, name: &str) -> TlsStream<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ANNOUNCED).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

/// Reads a PROXY head of either version and nothing behind it.
async fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = vec![0; 16];
    stream.read_exact(&mut head).await.unwrap();
    if head.starts_with(b"\r\n\r\n") {
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
        stream.read_exact(&mut rest).await.unwrap();
        head.extend(rest);
    }
    while head[0] == b'P' && !head.ends_with(b"\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    head
}

fn acceptor(authority: &Authority, names: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (cert, key) = authority.issue(names).der();
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(vec![cert], key).unwrap()))
}

type Heads = Arc<Mutex<Vec<Vec<u8>>>>;

/// An instance that wants a PROXY head, then TLS, then answers every request with 200; and the heads it got.
async fn announced_and_encrypted(authority: &Authority) -> (Scripted, Heads) {
    let (heads, acceptor) = (Heads::default(), acceptor(authority, &["a.test"]));
    let seen = Arc::clone(&heads);
    let instance = Scripted::raw(move |mut stream, _| {
        let (seen, acceptor) = (Arc::clone(&seen), acceptor.clone());
        async move {
            let head = head(&mut stream).await;
            seen.lock().unwrap().push(head);
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut read = vec![0; 4096];
            while matches!(stream.read(&mut read).await, Ok(n) if n > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (instance, heads)
}

#[tokio::test]
async fn a_proxys_head_then_tls_then_http2_are_one_client_to_the_rules() {
    let authority = Authority::new();
    let terminator = Terminator::new(TlsSettings::new(vec![authority.files("c", &["a.test"])])).unwrap();
    let mut listen = Listen { proxy_protocol: true, tls: Some(Arc::new(terminator)), ..Listen::plain(ANY) };
    listen.entrance.hsts = Some("max-age=600".parse().unwrap());
    let instance = Scripted::echo().await;
    let proxy = trusting(Setup::to(&[instance.address]).rules(BY_CLIENT).listen(vec![listen])).start().await;
    let mut config = authority.trusted();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = announced(config, proxy.address, "a.test").await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..2 {
        let request = http::Request::get("https://a.test/x").header("x-forwarded-for", "9.9.9.9").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        let promised: Vec<_> = answer.headers().get_all("strict-transport-security").iter().collect();
        assert_eq!(promised, ["max-age=31536000"], "the rule's word stands for the listener's");
    }
    driving.abort();
    for seen in instance.requests() {
        assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("203.0.113.9"), "a stranger's word is replaced");
        assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("https"));
    }
    assert_eq!(instance.requests().len(), 2);
    let mut bare = TcpStream::connect(proxy.address).await.unwrap();
    bare.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0]).await.unwrap();
    assert!(!matches!(soon("the end", bare.read(&mut [0; 8])).await, Ok(1..)), "without a head there is no handshake");
}

#[tokio::test]
async fn an_instance_is_announced_the_client_before_the_handshake() {
    let authority = Authority::new();
    let (ca, name) = (authority.ca().to_str().unwrap().to_owned(), "a.test");
    let tls = UpstreamTls { ca: Some(ca.as_str().into()), name: Some(name.into()), ..UpstreamTls::default() };
    for version in ["v1", "v2"] {
        let (instance, heads) = announced_and_encrypted(&authority).await;
        let rules = format!(
            "service: web\nupstream: {{proxy_protocol: {version}, tls: {{ca: {ca}, name: {name}}}}}\npools: {{all: id \
             exists}}\nrules:\n  - name: all\n    to: [all]\n"
        );
        let setup = Setup::to(&[instance.address]).rules(&rules);
        setup.trusts.of(&tls).load().unwrap();
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        let own = client.stream.local_addr().unwrap();
        for _ in 0..2 {
            client.send("GET /x HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            assert_eq!((soon("an answer", client.reply()).await.status, version), (200, version));
        }
        let heads = heads.lock().unwrap().clone();
        assert_eq!(heads.len(), 2, "{version}: a connection names one client, so it is not shared");
        for head in heads {
            let named = match version {
                "v1" => {
                    head == format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), proxy.address.port())
                        .as_bytes()
                }
                _ => {
                    let ports = [own.port().to_be_bytes(), proxy.address.port().to_be_bytes()].concat();
                    head.len() == 28 && head[16..24] == [127, 0, 0, 1, 127, 0, 0, 1] && head[24..] == ports
                }
            };
            assert!(named, "{version}: {}", head.escape_ascii());
        }
    }
}

#[tokio::test]
async fn what_is_passed_on_keeps_the_client_that_a_proxy_in_front_announced() {
    let authority = Authority::new();
    for (version, passes) in [("v1", Passes::Sni), ("v2", Passes::Sni), ("v2", Passes::Host("a.test".into()))] {
        let (instance, heads) = announced_and_encrypted(&authority).await;
        let rules = format!(
            "service: web\nhosts: [a.test]\nupstream: {{proxy_protocol: {version}}}\npools: {{all: id exists}}\nrules:\n  \
             - name: theirs\n    when: client.ip == 203.0.113.9\n    to: [all]\n"
        );
        let listen = Listen { proxy_protocol: true, passes: Some(passes), ..Listen::plain(ANY) };
        let proxy = trusting(Setup::to(&[instance.address]).rules(&rules).listen(vec![listen])).start().await;
        let mut client = Client::over(announced(authority.trusted(), proxy.address, "a.test").await);
        client.send("GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
        assert_eq!(soon("an answer", client.reply()).await.text(), "ok", "through two heads and a handshake");
        let heads = heads.lock().unwrap().clone();
        let wanted = match version {
            "v1" => ANNOUNCED.to_vec(),
            _ => {
                let addresses = [203, 0, 113, 9, 198, 51, 100, 7, 0x13, 0x88, 1, 187];
                [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 12], &addresses].concat()
            }
        };
        assert_eq!(heads, [wanted], "{version}");
        // Another client than the announced one is not for this rule.
        let mut stranger = TcpStream::connect(proxy.address).await.unwrap();
        stranger.write_all(b"PROXY UNKNOWN\r\nhello").await.unwrap();
        assert!(!matches!(soon("the end", stranger.read(&mut [0; 8])).await, Ok(1..)));
    }
}

/// A data plane that passes bytes on to an echo, with these time limits.
async fn echoing(timeouts: &str) -> (Scripted, Proxy) {
    let instance = Scripted::raw(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let rules = format!(
        "service: web\nhosts: [db.test]\ntimeout: {{{timeouts}}}\npools: {{all: id exists}}\nrules:\n  - name: all\n    \
         to: [all]\n"
    );
    let listen = Listen { passes: Some(Passes::Host("db.test".into())), ..Listen::plain(ANY) };
    let proxy = Setup::to(&[instance.address]).rules(&rules).listen(vec![listen]).start().await;
    (instance, proxy)
}

#[tokio::test]
async fn what_is_passed_on_ends_when_nothing_moves_or_when_it_is_too_old() {
    let (_idle_instance, idle) = echoing("stream_idle: 2s").await;
    let mut client = TcpStream::connect(idle.address).await.unwrap();
    let mut read = [0; 8];
    // What moves is not idle.
    for _ in 0..5 {
        client.write_all(b"x").await.unwrap();
        assert_eq!(soon("an echo", client.read(&mut read)).await.unwrap(), 1);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(!matches!(soon("the end", client.read(&mut read)).await, Ok(1..)));

    let (_old_instance, old) = echoing("stream_idle: 60s, max_stream_age: 300ms").await;
    let mut client = TcpStream::connect(old.address).await.unwrap();
    let moving = async {
        while client.write_all(b"x").await.is_ok() && matches!(client.read(&mut read).await, Ok(1..)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the end of a connection on which bytes move", moving).await;
}
