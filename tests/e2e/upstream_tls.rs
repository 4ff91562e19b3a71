//! TLS towards instances: who is believed, by which name, with which certificate of ours; PROXY heads towards them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pointsman::engine::upstream::UpstreamTls;
use pointsman::server::Listen;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::pki::Authority;
use crate::harness::{Scripted, Setup, instance, soon};

const GET: &str = "GET /x HTTP/1.1\r\nhost: shop\r\n\r\n";

/// TLS in front of an instance. `clients`: whose certificates it wants.
async fn encrypted(authority: &Authority, names: &[&str], clients: bool, behind: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let roots = Arc::new(authority.roots());
    let builder = match clients {
        false => builder.unwrap().with_no_client_auth(),
        true => builder
            .unwrap()
            .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap()),
    };
    let (cert, key) = authority.issue(names).der();
    let mut config = builder.with_single_cert(vec![cert], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut plain = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut plain).await
            });
        }
    });
    address
}

/// One request through rules with this `tls`, to an instance that shows a certificate for `web.test`.
struct Try<'t> {
    authority: &'t Authority,
    address: SocketAddr,
    labels: &'t [(&'t str, &'t str)],
}

impl Try<'_> {
    async fn with(&self, tls: &str, read: UpstreamTls) -> (u16, Option<String>) {
        let rules = format!(
            "service: web\nupstream: {{tls: {tls}}}\npools: {{all: id exists}}\nrules:\n  - name: all\n    to: [all]\n"
        );
        let rules = rules.replace("CA", self.authority.ca().to_str().unwrap());
        let mut setup = Setup::to(&[]).rules(&rules);
        setup.instances = vec![instance("web-0", self.address, self.labels)];
        let loaded = setup.trusts.of(&read).load();
        let proxy = setup.start().await;
        loaded.unwrap();
        let mut client = proxy.client().await;
        let mut last = (0, None);
        // The second request takes the connection that the first one made.
        for _ in 0..2 {
            client.send(GET).await;
            let reply = client.reply().await;
            last = (reply.status, reply.field("x-pointsman-error"));
        }
        last
    }
}

#[tokio::test]
async fn an_instance_is_believed_by_its_certificate_and_name() {
    let (authority, behind) = (Authority::new(), Scripted::echo().await);
    let address = encrypted(&authority, &["web.test"], false, behind.address).await;
    let attempt = Try { authority: &authority, address, labels: &[("host", "web.test"), ("other", "api.test")] };
    let ca = || Some(authority.ca().to_str().unwrap().into());
    let named = |name: &str| UpstreamTls { ca: ca(), name: Some(name.into()), ..UpstreamTls::default() };
    let labelled = |label: &str| UpstreamTls { ca: ca(), name_label: Some(label.into()), ..UpstreamTls::default() };
    let good = (200, None);
    assert_eq!(attempt.with("{ca: CA, name: web.test}", named("web.test")).await, good);
    assert_eq!(attempt.with("{ca: CA, name_label: host}", labelled("host")).await, good);
    assert_eq!(behind.connections(), 2, "a connection is kept for the second request");
    let refused = (502, Some("upstream_tls".to_owned()));
    assert_eq!(attempt.with("{ca: CA, name: api.test}", named("api.test")).await, refused);
    assert_eq!(attempt.with("{ca: CA, name_label: other}", labelled("other")).await, refused);
    let by_address = UpstreamTls { ca: ca(), ..UpstreamTls::default() };
    assert_eq!(attempt.with("{ca: CA}", by_address).await, refused, "the certificate is not for the address");
    let anybody = UpstreamTls { verify: false, ..UpstreamTls::default() };
    assert_eq!(attempt.with("{verify: false}", anybody).await, good);
    let stranger = Authority::new();
    let strange = Try { authority: &stranger, ..attempt };
    let other = UpstreamTls {
        ca: Some(stranger.ca().to_str().unwrap().into()),
        name: Some("web.test".into()),
        ..UpstreamTls::default()
    };
    assert_eq!(strange.with("{ca: CA, name: web.test}", other).await, refused);
}

#[tokio::test]
async fn our_own_certificate_is_shown_where_an_instance_asks_for_one() {
    let (authority, behind) = (Authority::new(), Scripted::echo().await);
    let address = encrypted(&authority, &["web.test"], true, behind.address).await;
    let files = authority.files("own", &["proxy.test"]);
    let attempt = Try { authority: &authority, address, labels: &[] };
    let text = |path: &std::path::Path| Some(path.to_str().unwrap().into());
    let shown = UpstreamTls {
        ca: text(&authority.ca()),
        cert: text(&files.cert),
        key: text(&files.key),
        name: Some("web.test".into()),
        ..UpstreamTls::default()
    };
    let written = format!(
        "{{ca: CA, name: web.test, cert: {}, key: {}}}",
        files.cert.to_str().unwrap(),
        files.key.to_str().unwrap()
    );
    assert_eq!(attempt.with(&written, shown).await.0, 200);
    let bare = UpstreamTls { ca: text(&authority.ca()), name: Some("web.test".into()), ..UpstreamTls::default() };
    assert_eq!(attempt.with("{ca: CA, name: web.test}", bare).await.0, 502);
}

#[tokio::test]
async fn an_instance_that_fails_at_tls_is_passed_over_and_ejected() {
    let (authority, behind) = (Authority::new(), Scripted::echo().await);
    let good = encrypted(&authority, &["web.test"], false, behind.address).await;
    let plain = Scripted::echo().await;
    let tls = UpstreamTls {
        ca: Some(authority.ca().to_str().unwrap().into()),
        name: Some("web.test".into()),
        ..UpstreamTls::default()
    };
    let rules = format!(
        "service: web\nupstream: {{tls: {{ca: {}, name: web.test}}}}\npools: {{all: id exists}}\nrules:\n  - name: all\n    to: [all]\n",
        authority.ca().display()
    );
    let setup = Setup::to(&[good, plain.address]).rules(&rules);
    setup.trusts.of(&tls).load().unwrap();
    let proxy = setup.start().await;
    for _ in 0..40 {
        assert_eq!(proxy.get("/x").await.status, 200);
    }
    let ejected = proxy.transitions.all();
    assert!(ejected.iter().any(|(id, _)| id == "web-1"), "{ejected:?}");
    assert_eq!(plain.requests().len(), 0);
}

#[tokio::test]
async fn a_proxy_head_names_the_address_that_the_client_connected_to() {
    let heads: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let behind = Scripted::raw(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let mut read = vec![0u8; 4096];
            let n = stream.read(&mut read).await.unwrap();
            seen.lock().unwrap().push(String::from_utf8_lossy(&read[..n]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let rules =
        "service: web\nupstream: {proxy_protocol: v1}\npools: {all: id exists}\nrules:\n  - name: all\n    to: [all]\n";
    // All addresses of IPv4, one of IPv6, and all of both families: what counts is where the client came in.
    let listen = ["0.0.0.0:0", "[::1]:0", "[::]:0"].map(|address| Listen::plain(address.parse().unwrap()));
    let proxy = Setup::to(&[behind.address]).rules(rules).listen(listen.to_vec()).start().await;
    let ports: Vec<u16> = proxy.addresses.iter().map(SocketAddr::port).collect();
    for (to, family) in [
        (SocketAddr::from(([127, 0, 0, 1], ports[0])), "TCP4 127.0.0.1 127.0.0.1"),
        (SocketAddr::from(([127, 0, 0, 2], ports[0])), "TCP4 127.0.0.1 127.0.0.2"),
        (SocketAddr::new("::1".parse().unwrap(), ports[1]), "TCP6 ::1 ::1"),
        (SocketAddr::new("::1".parse().unwrap(), ports[2]), "TCP6 ::1 ::1"),
        (SocketAddr::from(([127, 0, 0, 1], ports[2])), "TCP4 127.0.0.1 127.0.0.1"),
    ] {
        let mut client = crate::harness::Client::connect(to).await;
        let own = client.stream.local_addr().unwrap().port();
        client.send(GET).await;
        assert_eq!(soon("an answer", client.reply()).await.status, 200);
        let head = heads.lock().unwrap().pop().unwrap();
        let wanted = format!("PROXY {family} {own} {}\r\n", to.port());
        assert!(head.starts_with(&wanted), "{to}: {head:?} is not {wanted:?}");
    }
}

#[tokio::test]
async fn a_proxy_head_names_the_client_and_no_connection_is_shared() {
    let heads: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let behind = Scripted::raw(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let mut read = vec![0u8; 4096];
            let n = stream.read(&mut read).await.unwrap();
            seen.lock().unwrap().push(String::from_utf8_lossy(&read[..n]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.read(&mut read).await;
        }
    })
    .await;
    let rules =
        "service: web\nupstream: {proxy_protocol: v1}\npools: {all: id exists}\nrules:\n  - name: all\n    to: [all]\n";
    let proxy = Setup::to(&[behind.address]).rules(rules).start().await;
    let mut client = proxy.client().await;
    let own = client.stream.local_addr().unwrap();
    for _ in 0..2 {
        client.send(GET).await;
        assert_eq!(soon("an answer", client.reply()).await.status, 200);
    }
    let heads = heads.lock().unwrap().clone();
    let wanted = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), proxy.address.port());
    assert_eq!(heads.len(), 2, "each request has a connection of its own");
    assert!(heads.iter().all(|head| head.starts_with(&wanted)), "{heads:?}");
}
