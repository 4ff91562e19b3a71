//! TLS towards clients: which certificate, which client, which host; sessions that come back; files that change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman::server::Listen;
use pointsman::server::tls::{ClientAuth, Offered, Terminator, TlsSettings, Version};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::ocsp::{GOOD, REVOKED, response};
use crate::harness::pki::{Authority, TlsClient, greet};
use crate::harness::{ANY, Proxy, Reply, Scripted, Setup, ok, soon};

/// A data plane with one TLS listener in front of an echo.
struct Site {
    authority: Authority,
    proxy: Proxy,
    terminator: Arc<Terminator>,
    instance: Scripted,
}

impl Site {
    async fn with(names: &[&[&str]], change: impl FnOnce(&mut TlsSettings, &Authority)) -> Self {
        let authority = Authority::new();
        let files = names.iter().enumerate().map(|(at, names)| authority.files(&format!("c{at}"), names));
        let mut settings = TlsSettings::new(files.collect());
        change(&mut settings, &authority);
        Self::of(authority, settings, |setup| setup).await
    }

    async fn of(authority: Authority, settings: TlsSettings, change: impl FnOnce(Setup) -> Setup) -> Self {
        let terminator = Arc::new(Terminator::new(settings).unwrap());
        let instance = Scripted::echo().await;
        let listen = Listen { tls: Some(Arc::clone(&terminator)), ..Listen::plain(ANY) };
        let setup = change(Setup::to(&[instance.address]).listen(vec![listen]));
        Self { authority, proxy: setup.start().await, terminator, instance }
    }

    async fn greet(&self, name: &str) -> TlsClient {
        greet(&Arc::new(self.authority.trusted()), self.proxy.address, name).await.unwrap()
    }
}

fn get(host: &str) -> String {
    format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

async fn ask(client: &mut TlsClient, host: &str) -> Reply {
    client.send(get(host)).await;
    client.reply().await
}

/// The certificate that a client was shown, PEM's base64 left aside: its DER.
fn shown(client: &TlsClient) -> Vec<u8> {
    client.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn kind(client: &TlsClient) -> HandshakeKind {
    client.stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let site = Site::with(&[&["first.test", "127.0.0.1"], &["*.wild.test"], &["a.wild.test"]], |_, _| {}).await;
    let mut certificates = Vec::new();
    for name in ["first.test", "b.wild.test", "a.wild.test", "127.0.0.1"] {
        let mut client = site.greet(name).await;
        let reply = ask(&mut client, name).await;
        assert_eq!((reply.status, reply.text()), (200, "GET /x HTTP/1.1 ".to_owned()), "{name}");
        certificates.push(shown(&client));
    }
    assert_eq!(certificates[0], certificates[3], "no name is sent for an address, so it is the first");
    assert!(certificates[0] != certificates[1] && certificates[1] != certificates[2]);
    let unknown = greet(&Arc::new(site.authority.trusted()), site.proxy.address, "b.b.wild.test").await;
    assert!(unknown.is_err(), "a wildcard stands for one label, and the first certificate is for others");
    let scheme = site.instance.requests()[0].field("x-forwarded-proto");
    assert_eq!(scheme.as_deref(), Some("https"));
}

#[tokio::test]
async fn a_host_that_the_certificate_is_not_for_is_misdirected() {
    let site = Site::with(&[&["a.test", "b.test"], &["c.test"]], |_, _| {}).await;
    let mut client = site.greet("a.test").await;
    assert_eq!(ask(&mut client, "a.test").await.status, 200);
    assert_eq!(ask(&mut client, "B.test:443").await.status, 200, "another name of the same certificate");
    let reply = ask(&mut client, "c.test").await;
    assert_eq!((reply.status, reply.field("x-pointsman-error").as_deref()), (421, Some("misdirected")));
    assert_eq!(ask(&mut client, "a.test").await.status, 200, "the connection goes on");
    assert_eq!(site.instance.requests().len(), 3);
    let lax = Site::with(&[&["a.test"]], |settings, _| settings.check_authority = false).await;
    let mut client = lax.greet("a.test").await;
    assert_eq!(ask(&mut client, "c.test").await.status, 200);
}

#[tokio::test]
async fn client_certificates_are_required_or_optional_and_their_names_reach_the_rules() {
    let by_name = "service: web\npools: {all: id exists}\nrules:\n  - name: team\n    when: tls.client.san contains \
        \"team.test\" and tls.sni == a.test\n    respond: {status: 202}\n  - name: all\n    to: [all]\n";
    for required in [true, false] {
        let authority = Authority::new();
        let mut settings = TlsSettings::new(vec![authority.files("c", &["a.test"])]);
        settings.client = Some(ClientAuth { ca: authority.ca(), required });
        let site = Site::of(authority, settings, |setup| setup.rules(by_name)).await;
        let known = Arc::new(site.authority.trusted_with(&site.authority.issue(&["team.test", "10.0.0.1"])));
        for wanted in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = greet(&known, site.proxy.address, "a.test").await.unwrap();
            assert_eq!(ask(&mut client, "a.test").await.status, 202, "{wanted:?}");
            assert_eq!(kind(&client), wanted, "who came back shows no certificate, and is still known");
        }
        let stranger = site.authority.trusted_with(&Authority::new().issue(&["team.test"]));
        assert_eq!(answered(&stranger, &site).await, None, "another authority's word counts for nothing");
        let anonymous = answered(&site.authority.trusted(), &site).await;
        assert_eq!(anonymous, if required { None } else { Some(200) });
    }
}

/// The status of one request, or that there was no connection. With TLS 1.3 a client learns only by the first read that
/// it was refused.
async fn answered(config: &ClientConfig, site: &Site) -> Option<u16> {
    let mut client = greet(&Arc::new(config.clone()), site.proxy.address, "a.test").await.ok()?;
    let reply = ask(&mut client, "a.test").await;
    (reply.status != 0).then_some(reply.status)
}

#[tokio::test]
async fn sessions_come_back_in_both_versions_and_on_every_worker() {
    for (version, expected) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let authority = Authority::new();
        let settings = TlsSettings::new(vec![authority.files("c", &["a.test"])]);
        let site = Site::of(authority, settings, |setup| Setup { workers: 2, ..setup }).await;
        let config = Arc::new(site.authority.trusted_in(&[version]));
        for turn in 0..20 {
            let mut client = greet(&config, site.proxy.address, "a.test").await.unwrap();
            assert_eq!(ask(&mut client, "a.test").await.status, 200);
            assert_eq!(client.stream.get_ref().1.protocol_version(), Some(expected));
            let wanted = if turn == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(kind(&client), wanted, "{expected:?}, turn {turn}");
        }
        let counted = site.proxy.metric("pointsman_tls_handshakes_total{result=\"resumed\"}").unwrap();
        assert!(counted.ends_with(" 19"), "{counted}");
    }
}

#[tokio::test]
async fn a_version_or_a_protocol_that_is_not_offered_is_not_agreed_on() {
    let site = Site::with(&[&["a.test"]], |settings, _| {
        settings.versions = vec![Version::Tls13];
        settings.alpn = vec![Offered::Http1];
    })
    .await;
    let old = site.authority.trusted_in(&[&rustls::version::TLS12]);
    assert!(greet(&Arc::new(old), site.proxy.address, "a.test").await.is_err());
    let mut other = site.authority.trusted();
    other.alpn_protocols = vec![b"smtp".to_vec()];
    assert!(greet(&Arc::new(other), site.proxy.address, "a.test").await.is_err());
    let mut http = site.authority.trusted();
    http.alpn_protocols = vec![b"smtp".to_vec(), b"http/1.1".to_vec()];
    let client = greet(&Arc::new(http), site.proxy.address, "a.test").await.unwrap();
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // Nor is it spoken without that: by who agreed on something else, and by who said nothing (RFC 9113, 3.2).
    for mut client in [client, site.greet("a.test").await] {
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        let reply = client.reply().await;
        assert!([0, 400, 505].contains(&reply.status), "{}", reply.status);
    }
    assert_eq!(site.proxy.metric("pointsman_h2_streams_total").map(|line| line.ends_with(" 0")), Some(true));
}

#[tokio::test]
async fn http_2_is_agreed_on_and_spoken() {
    let site = Site::with(&[&["a.test"]], |_, _| {}).await;
    let mut both = site.authority.trusted();
    both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = greet(&Arc::new(both), site.proxy.address, "a.test").await.unwrap();
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = h2::client::handshake(client.stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for (host, expected) in [("a.test", 200), ("b.test", 421)] {
        let request = http::Request::get(format!("https://{host}/x")).body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        assert_eq!(soon("an answer", answer).await.unwrap().status(), expected);
    }
    driving.abort();
}

#[tokio::test]
async fn a_client_that_stalls_its_handshake_is_cut_and_counted() {
    let authority = Authority::new();
    let settings = TlsSettings::new(vec![authority.files("c", &["a.test"])]);
    let site = Site::of(authority, settings, |setup| setup.limits(|limits| limits.tls_handshake = 2_000)).await;
    let mut silent = TcpStream::connect(site.proxy.address).await.unwrap();
    let mut half = TcpStream::connect(site.proxy.address).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    let mut rubbish = TcpStream::connect(site.proxy.address).await.unwrap();
    rubbish.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut good = site.greet("a.test").await;
    assert_eq!(ask(&mut good, "a.test").await.status, 200, "others are served meanwhile");
    for stalled in [&mut silent, &mut half, &mut rubbish] {
        let mut rest = Vec::new();
        // A reset counts as an end.
        let _ = soon("the end", stalled.read_to_end(&mut rest)).await;
    }
    // They are counted right after they are closed.
    for line in ["timeout\"} 2", "failed\"} 1"] {
        let wanted = format!("pointsman_tls_handshakes_total{{result=\"{line}");
        soon(&wanted, async {
            while site.proxy.metric(&wanted).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn certificates_that_change_a_hundred_times_under_load_cost_no_request() {
    let site = Site::with(&[&["a.test"]], |_, _| {}).await;
    let files = site.terminator.settings().certificates[0].clone();
    let config = Arc::new(site.authority.trusted());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let loads: Vec<_> = (0..4)
        .map(|kept| {
            let (stop, address) = (Arc::clone(&stop), site.proxy.address);
            let mut config = (*config).clone();
            if kept == 3 {
                // A session that comes back is not shown a certificate again.
                config.resumption = rustls::client::Resumption::disabled();
            }
            let config = Arc::new(config);
            tokio::spawn(async move {
                let (mut client, mut count, mut seen) = (None, 0usize, std::collections::HashSet::new());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut open = match client.take() {
                        Some(open) => open,
                        None => greet(&config, address, "a.test").await.expect("a handshake"),
                    };
                    assert_eq!(ask(&mut open, "a.test").await.status, 200);
                    seen.insert(shown(&open));
                    count += 1;
                    client = (kept % 2 == 0).then_some(open);
                }
                (count, seen)
            })
        })
        .collect();
    for turn in 0..100 {
        site.authority.issue(&["a.test"]).write(&files.cert, &files.key);
        site.terminator.reload().unwrap();
        if turn % 10 == 0 {
            // A key without its certificate, and no certificate at all: refused, and nothing changes.
            std::fs::write(&files.key, site.authority.issue(&["a.test"]).key).unwrap();
            let error = site.terminator.reload().unwrap_err();
            assert!(error.contains("do not go together") && error.contains("c0.key.pem"), "{error}");
            std::fs::write(&files.cert, "rubbish").unwrap();
            assert!(site.terminator.reload().unwrap_err().contains("c0.cert.pem"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut asked, mut certificates) = (0, std::collections::HashSet::new());
    for load in loads {
        let (count, seen) = soon("the load's end", load).await.expect("no request failed");
        asked += count;
        certificates.extend(seen);
    }
    assert!(asked > 100 && certificates.len() > 10, "{asked} requests, {} certificates", certificates.len());
}

#[tokio::test]
async fn another_authority_of_clients_ends_sessions_that_the_one_before_vouched_for() {
    let site = Site::with(&[&["a.test"]], |settings, authority| {
        settings.client = Some(ClientAuth { ca: authority.ca(), required: true });
    })
    .await;
    let known = Arc::new(site.authority.trusted_with(&site.authority.issue(&["team.test"])));
    let address = site.proxy.address;
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = greet(&known, address, "a.test").await.unwrap();
        assert_eq!(ask(&mut client, "a.test").await.status, 200);
        assert_eq!(kind(&client), expected);
    }
    let ca = site.authority.ca();
    std::fs::copy(Authority::new().ca(), &ca).unwrap();
    site.terminator.reload().unwrap();
    let after = match greet(&known, address, "a.test").await {
        Ok(mut client) => ask(&mut client, "a.test").await.status,
        Err(_) => 0,
    };
    assert_eq!(after, 0, "neither the certificate nor the old session counts any more");
}

#[tokio::test]
async fn long_bodies_pass_both_ways_and_a_kept_connection_rests() {
    let authority = Authority::new();
    let settings = TlsSettings::new(vec![authority.files("c", &["a.test"])]);
    let site = Site::of(authority, settings, |setup| setup.limits(|limits| limits.rest_after = 20)).await;
    let mut client = site.greet("a.test").await;
    let body = "0123456789abcdef".repeat(40_000);
    for _ in 0..3 {
        let head = format!("POST /x HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n", body.len());
        client.send(format!("{head}{body}")).await;
        let reply = client.reply().await;
        assert!(reply.whole && reply.text().ends_with(&body), "{}", reply.body.len());
        // Longer than it takes to be taken apart.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// A site whose certificate has an OCSP response beside it, and the response's file.
async fn stapling() -> (Site, PathBuf) {
    let site = Site::with(&[&["a.test"]], |settings, authority| {
        settings.certificates[0].ocsp = Some(authority.folder.path().join("ocsp.der"));
    })
    .await;
    let path = site.authority.folder.path().join("ocsp.der");
    (site, path)
}

impl Site {
    /// What a new client is stapled; its request is served whatever that is.
    async fn stapled(&self) -> Vec<u8> {
        let (config, stapled) = self.authority.trusted_and_stapled();
        let mut client = greet(&Arc::new(config), self.proxy.address, "a.test").await.unwrap();
        assert_eq!(ask(&mut client, "a.test").await.status, 200);
        stapled.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn an_ocsp_response_is_stapled_only_if_it_says_now_that_this_certificate_is_good() {
    let (site, path) = stapling().await;
    assert!(site.terminator.doubts().iter().any(|doubt| doubt.contains("ocsp.der: ")), "a missing file blocks nothing");
    let cert = site.terminator.settings().certificates[0].cert.clone();
    let other = site.authority.files("other", &["a.test"]).cert;
    let good = response(&cert, GOOD, -60, Some(3_600));
    let endless = response(&cert, GOOD, -60, None);
    let shifted = [good.as_slice(), b"\0"].concat();
    for (bytes, wrong) in [
        (good.clone(), None),
        (response(&other, GOOD, -60, Some(3_600)), Some("for another certificate")),
        (endless, None),
        (response(&cert, REVOKED, -60, Some(3_600)), Some("THE CERTIFICATE IS REVOKED")),
        (response(&cert, GOOD, -7_200, Some(-3_600)), Some("the OCSP response is over")),
        (response(&cert, GOOD, -90_000, None), Some("the OCSP response is over")),
        (response(&cert, GOOD, 3_600, Some(7_200)), Some("not valid yet")),
        (vec![0x30, 3, 0x0a, 1, 6], Some("no answer but the error 6")),
        (vec![0x30, 5, 0x0a, 1, 0, 0xa0, 0], Some("not an OCSP response")),
        (b"unauthorized".to_vec(), Some("not an OCSP response")),
        (vec![0; 70_000], Some("larger than 65536 bytes")),
        (shifted, Some("not an OCSP response")),
        (good, None),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        site.terminator.reload().unwrap();
        let doubts = site.terminator.doubts();
        let doubt = doubts.iter().find(|doubt| doubt.contains("ocsp.der: "));
        assert_eq!(doubt.is_some(), wrong.is_some(), "{doubts:?}");
        assert!(wrong.is_none_or(|wrong| doubt.is_some_and(|doubt| doubt.contains(wrong))), "{wrong:?}: {doubts:?}");
        assert_eq!(site.stapled().await, if wrong.is_none() { bytes } else { Vec::new() }, "{wrong:?}");
    }
    // The certificate is replaced, and the response is not yet.
    site.authority.issue(&["a.test"]).write(&cert, &cert.with_file_name("c0.key.pem"));
    site.terminator.reload().unwrap();
    assert_eq!(site.stapled().await, b"");
    std::fs::remove_file(&path).unwrap();
    site.terminator.reload().unwrap();
    assert_eq!(site.stapled().await, b"");
}

#[tokio::test]
async fn a_staple_that_runs_out_is_dropped_without_a_reload() {
    let (site, path) = stapling().await;
    let cert = site.terminator.settings().certificates[0].cert.clone();
    let short = response(&cert, GOOD, -60, Some(5));
    std::fs::write(&path, &short).unwrap();
    site.terminator.reload().unwrap();
    assert_eq!(site.stapled().await, short);
    soon("the end of the response", async {
        while !site.stapled().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(site.terminator.unstapled()[0].contains("the OCSP response is over"));
}

#[tokio::test]
async fn plain_listeners_redirect_and_encrypted_ones_promise_to_stay() {
    let authority = Authority::new();
    let settings = TlsSettings::new(vec![authority.files("c", &["a.test"])]);
    let site = Site::of(authority, settings, |mut setup| {
        setup.listen[0].entrance.hsts = Some("max-age=600".parse().unwrap());
        let mut plain = Listen::plain(ANY);
        plain.entrance.redirect = Some(8443);
        setup.listen.push(plain);
        setup
    })
    .await;
    let mut encrypted = site.greet("a.test").await;
    let reply = ask(&mut encrypted, "a.test").await;
    assert_eq!((reply.status, reply.field("strict-transport-security").as_deref()), (200, Some("max-age=600")));
    let mut plain = crate::harness::Client::connect(site.proxy.addresses[1]).await;
    plain.send("POST /a%20b?c=d HTTP/1.1\r\nhost: A.test:8080\r\ncontent-length: 0\r\n\r\n").await;
    let reply = plain.reply().await;
    assert_eq!((reply.status, reply.field("location").as_deref()), (308, Some("https://a.test:8443/a%20b?c=d")));
    assert_eq!(reply.field("strict-transport-security"), None);
    plain.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(plain.reply().await.status, 400, "there is nowhere to send a client that names no host");
    assert_eq!(site.instance.requests().len(), 1);
}

#[tokio::test]
async fn a_drain_ends_encrypted_connections_with_a_notice() {
    let site = Site::with(&[&["a.test"]], |_, _| {}).await;
    let mut idle = site.greet("a.test").await;
    assert_eq!(ask(&mut idle, "a.test").await.status, 200);
    let draining = tokio::spawn(site.proxy.drain(Duration::from_secs(5)));
    assert_eq!(
        soon("the end", idle.stream.read(&mut [0; 16])).await.unwrap(),
        0,
        "close_notify, not a torn connection"
    );
    assert_eq!(soon("the drain", draining).await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_half_closed_client_is_answered_only_where_the_listener_says_so() {
    let instance = Scripted::http(|_| ok("late")).await;
    let mut listen = vec![Listen::plain(ANY), Listen::plain(ANY)];
    listen[1].entrance.half_close = true;
    let proxy = Setup::to(&[instance.address]).listen(listen).start().await;
    for (address, expected) in [(proxy.addresses[0], 0), (proxy.addresses[1], 200)] {
        let mut client = crate::harness::Client::connect(address).await;
        // The end is there before the request can have been answered.
        let mut together = socket_with_all_at_once(&mut client.stream).await;
        assert_eq!(together.reply().await.status, expected);
    }
}

/// Sends a request with the end right behind it.
async fn socket_with_all_at_once(stream: &mut TcpStream) -> crate::harness::Client<&mut TcpStream> {
    stream.write_all(get("shop").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    crate::harness::Client::over(stream)
}

#[tokio::test]
async fn a_rule_has_the_last_word_on_the_promise_to_stay_encrypted() {
    let rules = "service: web\npools: {all: id exists, none: id == nobody}\nrules:\n  - {name: taken, when: path under '/taken', \
                 to: all, headers: {response: {remove: [strict-transport-security]}}}\n  - {name: other, when: path under \
                 '/other', to: all, headers: {response: {set: {strict-transport-security: max-age=0}}}}\n  - {name: added, when: \
                 path under '/added', to: all, headers: {response: {add: {strict-transport-security: max-age=5}}}}\n  - {name: \
                 own, when: path under '/own', respond: {status: 403}, headers: {response: {remove: \
                 [strict-transport-security]}}}\n  - {name: refused, when: path under '/refused', to: none, headers: {response: \
                 {remove: [strict-transport-security]}}}\n  - {name: else, when: path under '/else', to: none}\n  - {name: all, \
                 to: all, headers: {response: {set: {x-other: edit}}}}\n";
    let authority = Authority::new();
    let settings = TlsSettings::new(vec![authority.files("c", &["a.test"])]);
    let site = Site::of(authority, settings, |mut setup| {
        setup.listen[0].entrance.hsts = Some("max-age=600".parse().unwrap());
        setup.rules(rules)
    })
    .await;
    let mut client = site.greet("a.test").await;
    for (path, status, promised) in [
        ("/", 200, Some("max-age=600")),
        ("/taken", 200, None),
        ("/other", 200, Some("max-age=0")),
        ("/added", 200, Some("max-age=5")),
        ("/own", 403, None),
        // Our own error is not edited, but it must not promise what the rule takes back.
        ("/refused", 503, None),
        ("/else", 503, Some("max-age=600")),
    ] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.field("strict-transport-security").as_deref()), (status, promised), "{path}");
    }
}
