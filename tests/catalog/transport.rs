//! Over TLS, h2, a Unix socket and several addresses the catalog is followed all the same, and what goes wrong there is
//! said and removes nothing.

use std::path::PathBuf;
use std::time::Duration;

use pointsman::catalog::Note;
use pointsman::catalog::consul::{self, Settings};
use pointsman::catalog::status::Followed;
use pointsman::catalog::watch::keeper::Doubt;

use crate::front::{Authority, Front, Identity, Tls};
use crate::scripted_consul::{Registration, ScriptedConsul};
use crate::subscriber::{SOON, Subscriber, held, settings};

/// A Consul with `web` on a.
async fn one() -> ScriptedConsul {
    let consul = ScriptedConsul::start().await;
    consul.register(Registration::new("web", "a", 9001));
    consul
}

/// Files of a client, in a folder that goes with them.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// This authority is the one to trust.
    fn trusting(&self, authority: &Authority) -> consul::Tls {
        authority.write(&self.at("ca.pem"));
        consul::Tls { ca: Some(self.at("ca.pem")), ..consul::Tls::default() }
    }

    /// This is who we are.
    fn being(&self, identity: &Identity, tls: consul::Tls) -> consul::Tls {
        identity.write(&self.at("cert.pem"), &self.at("key.pem"));
        consul::Tls { cert: Some(self.at("cert.pem")), key: Some(self.at("key.pem")), ..tls }
    }
}

fn over(front: &Front, tls: consul::Tls) -> Settings {
    Settings { tls, ..settings(front.url()) }
}

fn shown(identity: &Identity) -> Tls<'_> {
    Tls { identity, clients: None, h2: false }
}

/// Waits until the source's last error holds one of these.
async fn until_error(subscriber: &Subscriber, words: &[&str]) {
    let says = |error: String| words.iter().any(|word| error.to_lowercase().contains(word));
    subscriber.until_counters(|_| subscriber.source().last_error.is_some_and(says)).await;
}

async fn sees_a_change(consul: &ScriptedConsul, subscriber: &mut Subscriber) {
    subscriber.until_ids("web", &["a"]).await;
    consul.register(Registration::new("web", "b", 9002));
    subscriber.until_ids("web", &["a", "b"]).await;
    assert!(subscriber.source().connected);
}

#[tokio::test]
async fn https_with_a_private_authority_is_followed() {
    let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
    let identity = ours.issue("127.0.0.1");
    let front = Front::tls(consul.addr(), shown(&identity)).await;
    let mut subscriber = Subscriber::start(over(&front, files.trusting(&ours)), &["web"]);
    sees_a_change(&consul, &mut subscriber).await;
    assert_eq!(subscriber.source().agent, front.url());
    assert_eq!(front.refused(), 0);
}

#[tokio::test]
async fn an_unknown_authority_is_named_and_nothing_is_read_from_it() {
    let (consul, files) = (one().await, Files::new());
    let identity = Authority::new("theirs").issue("127.0.0.1");
    let front = Front::tls(consul.addr(), shown(&identity)).await;
    let tls = files.trusting(&Authority::new("ours"));
    let mut subscriber = Subscriber::start(over(&front, tls), &["web"]);
    until_error(&subscriber, &["certificate: unknownissuer"]).await;
    assert!(!subscriber.running.status.readiness().ready && consul.requests().is_empty());
    subscriber.silent(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn an_authority_that_changes_removes_nothing_and_its_file_is_read_again() {
    let (consul, files, old) = (one().await, Files::new(), Authority::new("old"));
    let first = old.issue("127.0.0.1");
    let front = Front::tls(consul.addr(), shown(&first)).await;
    let mut subscriber = Subscriber::start(over(&front, files.trusting(&old)), &["web"]);
    subscriber.until_ids("web", &["a"]).await;

    let new = Authority::new("new");
    front.change(shown(&new.issue("127.0.0.1")));
    until_error(&subscriber, &["certificate: unknownissuer"]).await;
    subscriber.never_without("web", &["a"], Duration::from_millis(300)).await;
    // A file that is broken for a moment does no harm either.
    std::fs::write(files.at("ca.pem"), "no certificate").expect("written");
    let failures = subscriber.source().counters.failures;
    subscriber.until_counters(|counters| counters.failures > failures).await;
    new.write(&files.at("ca.pem"));
    consul.register(Registration::new("web", "b", 9002));
    subscriber.until_ids("web", &["a", "b"]).await;
}

#[tokio::test]
async fn certificates_are_not_verified_when_that_is_asked_for() {
    let consul = one().await;
    let identity = Authority::new("nobody's").issue("elsewhere.example");
    let front = Front::tls(consul.addr(), shown(&identity)).await;
    let tls = consul::Tls { insecure: true, ..consul::Tls::default() };
    let mut subscriber = Subscriber::start(over(&front, tls), &["web"]);
    sees_a_change(&consul, &mut subscriber).await;
}

#[tokio::test]
async fn the_server_name_is_what_the_certificate_must_carry() {
    let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
    let identity = ours.issue("server.dc1.consul");
    let front = Front::tls(consul.addr(), shown(&identity)).await;
    let without = Subscriber::start(over(&front, files.trusting(&ours)), &["web"]);
    until_error(&without, &["not valid for name"]).await;
    let tls = consul::Tls { server_name: Some("server.dc1.consul".to_owned()), ..files.trusting(&ours) };
    let mut with = Subscriber::start(over(&front, tls), &["web"]);
    sees_a_change(&consul, &mut with).await;
}

#[tokio::test]
async fn a_missing_client_certificate_is_named() {
    for h2 in [false, true] {
        let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
        let identity = ours.issue("127.0.0.1");
        let front = Front::tls(consul.addr(), Tls { identity: &identity, clients: Some(&ours), h2 }).await;
        let subscriber = Subscriber::start(over(&front, files.trusting(&ours)), &["web"]);
        until_error(&subscriber, &["certificaterequired", "certificate_required"]).await;
        assert!(consul.requests().is_empty());
    }
}

#[tokio::test]
async fn client_certificates_are_shown_and_read_again_when_they_change() {
    let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
    let (identity, old, new) = (ours.issue("127.0.0.1"), Authority::new("old"), Authority::new("new"));
    let asking = |clients| Tls { identity: &identity, clients: Some(clients), h2: false };
    let front = Front::tls(consul.addr(), asking(&old)).await;
    let tls = files.being(&old.issue("pointsman"), files.trusting(&ours));
    let mut subscriber = Subscriber::start(over(&front, tls.clone()), &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    assert_eq!(front.refused(), 0);

    front.change(asking(&new));
    subscriber.until_counters(|counters| counters.failures >= 1 && front.refused() >= 1).await;
    subscriber.never_without("web", &["a"], Duration::from_millis(300)).await;
    files.being(&new.issue("pointsman"), tls);
    consul.register(Registration::new("web", "b", 9002));
    subscriber.until_ids("web", &["a", "b"]).await;
}

#[tokio::test]
async fn tls_files_that_cannot_be_used_are_named() {
    let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
    let identity = ours.issue("127.0.0.1");
    let front = Front::tls(consul.addr(), shown(&identity)).await;
    let tls = consul::Tls { ca: Some(files.at("ca.pem")), ..consul::Tls::default() };
    let mut subscriber = Subscriber::start(over(&front, tls), &["web"]);
    until_error(&subscriber, &["ca.pem"]).await;
    ours.write(&files.at("ca.pem"));
    sees_a_change(&consul, &mut subscriber).await;
}

#[tokio::test]
async fn a_limit_of_connections_over_tls_is_known_as_such() {
    let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
    let identity = ours.issue("127.0.0.1");
    let front = Front::tls(consul.addr(), shown(&identity)).await;
    let mut subscriber = Subscriber::start(over(&front, files.trusting(&ours)), &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    consul.wait_for_requests("/health/service/web?index", 1).await;
    consul.wait_for_requests("/catalog/services?index", 1).await;
    front.limit(front.accepted());
    consul.register(Registration::new("other", "a", 9002));
    subscriber.wanted.send_replace(crate::subscriber::wanted(&["web", "other"]));
    subscriber.until_counters(|counters| counters.congested >= 1).await;
    until_error(&subscriber, &["limit of connections"]).await;
    front.limit(usize::MAX);
    subscriber.until_ids("other", &["a"]).await;
}

#[tokio::test]
async fn over_h2_all_watches_share_one_connection() {
    let (consul, files, ours) = (ScriptedConsul::start().await, Files::new(), Authority::new("ours"));
    let names: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &all {
        consul.register(Registration::new(name, "a", 9001));
    }
    let identity = ours.issue("127.0.0.1");
    let front = Front::tls(consul.addr(), Tls { h2: true, ..shown(&identity) }).await;
    // Of six connections two could be blocked on HTTP/1.1.
    let few = Settings { max_connections: 6, ..over(&front, files.trusting(&ours)) };
    let mut subscriber = Subscriber::start(few, &all);
    for name in &all {
        subscriber.until_ids(name, &["a"]).await;
        consul.wait_for_requests(&format!("/health/service/{name}?index"), 1).await;
    }
    for name in &all {
        consul.register(Registration::new(name, "b", 9002));
    }
    for name in &all {
        subscriber.until_ids(name, &["a", "b"]).await;
        assert_eq!(subscriber.service(name).followed, Followed::Watched, "{name}");
    }
    assert_eq!((front.accepted(), subscriber.source().connections), (1, 1));
    assert_eq!(subscriber.source().counters.failures, 0, "{:?}", subscriber.source());
}

#[tokio::test]
async fn an_h2_connection_that_is_cut_is_made_once_again() {
    let (consul, files, ours) = (one().await, Files::new(), Authority::new("ours"));
    let identity = ours.issue("127.0.0.1");
    let front = Front::tls(consul.addr(), Tls { h2: true, ..shown(&identity) }).await;
    let mut subscriber = Subscriber::start(over(&front, files.trusting(&ours)), &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    front.change(Tls { h2: true, ..shown(&identity) });
    subscriber.until_counters(|counters| counters.failures >= 1).await;
    sees_a_change(&consul, &mut subscriber).await;
    assert_eq!(front.accepted(), 2);
}

#[tokio::test]
async fn a_unix_socket_is_followed_and_found_again() {
    let (consul, files) = (one().await, Files::new());
    let path = files.at("consul.sock");
    let front = Front::unix(consul.addr(), &path);
    let mut subscriber = Subscriber::start(settings(front.url()), &["web"]);
    sees_a_change(&consul, &mut subscriber).await;
    assert_eq!(subscriber.source().agent, format!("unix://{}", path.display()));
    drop(front);
    std::fs::remove_file(&path).expect("the socket is there");
    until_error(&subscriber, &["consul.sock"]).await;
    subscriber.never_without("web", &["a", "b"], Duration::from_millis(300)).await;
    let _again = Front::unix(consul.addr(), &path);
    consul.register(Registration::new("web", "c", 9003));
    subscriber.until_ids("web", &["a", "b", "c"]).await;
}

#[tokio::test]
async fn the_next_address_is_asked_afresh_and_what_it_lacks_is_held_first() {
    let (first, second) = (ScriptedConsul::start().await, ScriptedConsul::start().await);
    for (id, port) in [("a", 9001), ("b", 9002), ("c", 9003)] {
        first.register(Registration::new("web", id, port));
    }
    // Its indexes are higher, so only the move tells that they mean something else.
    (0..50).for_each(|_| second.other_write());
    for (id, port) in [("a", 9001), ("b", 9002)] {
        second.register(Registration::new("web", id, port));
    }
    let both = Settings { address: vec![first.url(), second.url()], ..Settings::default() };
    let mut subscriber = Subscriber::start(both, &["web"]);
    subscriber.until_ids("web", &["a", "b", "c"]).await;
    first.stop();
    let state = subscriber.until("web", |state| held(state) == 1).await;
    assert_eq!(state.note, Note::Held { instances: 1, why: Doubt::Broken });
    assert!(subscriber.source().counters.failures >= 3, "{:?}", subscriber.source());
    let began = tokio::time::Instant::now();
    subscriber.until_ids("web", &["a", "b"]).await;
    assert!(began.elapsed() > Duration::from_millis(1_500) && began.elapsed() < SOON, "{:?}", began.elapsed());
    let asked = second.requests();
    let afresh = asked.iter().find(|request| request.contains("/health/service/web"));
    assert!(afresh.is_some_and(|request| !request.contains("index=")), "{asked:?}");
}

#[tokio::test]
async fn a_watch_that_did_not_break_takes_no_index_to_the_next_address() {
    let (first, second) = (one().await, one().await);
    (0..50).for_each(|_| first.other_write());
    first.register(Registration::new("web", "a", 9001).tag("new"));
    let both =
        Settings { address: vec![first.url(), second.url()], wait: Duration::from_secs(2), ..Settings::default() };
    let mut subscriber = Subscriber::start(both, &["web"]);
    subscriber.until_ids("web", &["a"]).await;
    first.wait_for_requests("/health/service/web?index", 1).await;
    first.wait_for_requests("/catalog/services?index", 1).await;
    // New services find nobody at the first address while the watches there are still held.
    first.stop_listening();
    let wanted = ["web", "s1", "s2", "s3", "s4"];
    subscriber.wanted.send_replace(crate::subscriber::wanted(&wanted));
    second.wait_for_requests("/health/service/web", 2).await;
    second.wait_for_requests("/catalog/services", 2).await;
    for path in ["/health/service/web", "/catalog/services"] {
        let asked = second.requests();
        let afresh = asked.iter().find(|request| request.contains(path));
        assert!(afresh.is_some_and(|request| !request.contains("index=")), "{asked:?}");
    }
    second.register(Registration::new("web", "b", 9002));
    subscriber.until_ids("web", &["a", "b"]).await;
}
