//! Thousands that come in the same moment, beside a client that is connected already: it is served in between.
//!
//! What is counted are its answers while the crowd is served, for that does not depend on how fast the machine is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::descriptors::raise_descriptors;
use crate::front::Authority;
use crate::support::binary::Proxy;
use crate::support::site::{Site, admin_get, ready, until};

const RULES: &str = "service: web\npools: {all: id exists}\nrules: [{name: all, respond: {status: 200, body: ok}}]\n";
const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const LONGEST: Duration = Duration::from_secs(30);

/// One worker, with a plain listener and an encrypted one.
async fn proxy(site: &Site, authority: &Authority) -> Proxy {
    let (cert, key) = (site.path("cert.pem"), site.path("key.pem"));
    authority.issue("web.test").write(&cert, &key);
    let config = site.path("pointsman.yaml");
    let listen = format!("{{address: 127.0.0.1:0, tls: {{cert: {}, key: {}}}}}", cert.display(), key.display());
    let text = format!("listen: [{{address: 127.0.0.1:0}}, {listen}]\nadmin: {{address: 127.0.0.1:0}}\nworkers: 1\n");
    std::fs::write(&config, text).unwrap();
    let (catalog, rules) = (site.catalog(), site.rules());
    let files = [&config, &catalog, &rules].map(|path| path.to_str().unwrap());
    let proxy = Proxy::start_with(&["--config", files[0], "--catalog", files[1], "--rules", files[2]]);
    ready(proxy.admin).await;
    proxy
}

/// One that asks again and again on one connection.
struct Good {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Vec<Instant>>,
}

impl Good {
    fn start(to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut stream = connected(to);
        let asking = std::thread::spawn(move || {
            let mut answered = Vec::new();
            while !stopped.load(Relaxed) {
                stream.write_all(ASKED).unwrap();
                let mut answer = [0; 1_024];
                let read = stream.read(&mut answer).unwrap();
                assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer[..read]));
                answered.push(Instant::now());
            }
            answered
        });
        Self { stop, asking }
    }

    /// How many answers it had in this time.
    fn answers(self, from: Instant, to: Instant) -> usize {
        self.stop.store(true, Relaxed);
        self.asking.join().unwrap().iter().filter(|at| (from..to).contains(*at)).count()
    }
}

fn connected(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    stream
}

/// The proxy stands still while the crowd says what it has to say; then all of it is there at once. Returns the good
/// client's answers until the whole crowd was answered.
fn beside(proxy: &Proxy, crowd: impl FnOnce() -> Vec<TcpStream>) -> usize {
    let good = Good::start(proxy.listen);
    proxy.signal("STOP");
    let mut crowd = crowd();
    let from = Instant::now();
    proxy.signal("CONT");
    for client in &mut crowd {
        assert!(client.read(&mut [0; 16]).is_ok_and(|read| read > 0), "everybody is answered");
    }
    let to = Instant::now();
    let answers = good.answers(from, to);
    println!("{answers} answers beside {} in {:?}", crowd.len(), to - from);
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_is_served_while_thousands_connect() {
    raise_descriptors();
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let proxy = proxy(&site, &Authority::new("the test's")).await;
    let answers = beside(&proxy, || {
        let asked = |_| {
            let mut stream = connected(proxy.listen);
            stream.write_all(ASKED).unwrap();
            stream
        };
        (0..3_000).map(asked).collect()
    });
    assert!(answers >= 50, "{answers} answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_is_served_while_a_thousand_shake_hands() {
    raise_descriptors();
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let authority = Authority::new("the test's");
    let proxy = proxy(&site, &authority).await;
    let crowd: Vec<TcpStream> = (0..1_000).map(|_| connected(proxy.listens[1])).collect();
    until("all are accepted", async || {
        let (_, page) = admin_get(proxy.admin, "/metrics").await.unwrap();
        let count = page.as_str().unwrap_or_default().lines().filter(|line| line.starts_with("pointsman_connections{"));
        count.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= 1_000.0
    })
    .await;
    let greeting = greeting(&authority);
    let answers = beside(&proxy, || {
        crowd.iter().for_each(|mut client| client.write_all(&greeting).unwrap());
        crowd
    });
    assert!(answers >= 15, "{answers} answers");
}

/// What a client of TLS says first.
fn greeting(authority: &Authority) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(authority.roots()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("web.test").unwrap()).unwrap();
    let mut said = Vec::new();
    client.write_tls(&mut said).unwrap();
    said
}
