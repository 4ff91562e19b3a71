//! The PROXY protocol from a proxy in front: whose word counts, and what becomes of everybody else's.

use std::time::Duration;

use pointsman::server::Listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{ANY, Client, Proxy, Scripted, Setup, soon};

const GET: &str = "GET /x HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 9.9.9.9\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const BY_CLIENT: &str = "service: web\npools: {all: id exists}\nrules:\n  - name: theirs\n    when: client.ip in \
    [203.0.113.0/24]\n    respond: {status: 202}\n  - name: all\n    to: [all]\n";

async fn site(trusted: &str) -> (Proxy, Scripted) {
    let instance = Scripted::echo().await;
    let listen = Listen { proxy_protocol: true, ..Listen::plain(ANY) };
    let setup = Setup::to(&[instance.address]).rules(BY_CLIENT).listen(vec![listen]);
    let setup = setup.settings(|settings| settings.trusted_proxies = vec![trusted.parse().unwrap()]);
    (setup.limits(|limits| limits.head = 2_000).start().await, instance)
}

async fn ask(proxy: &Proxy, head: &[u8]) -> u16 {
    let mut client = proxy.client().await;
    client.send([head, GET.as_bytes()].concat()).await;
    client.reply().await.status
}

#[tokio::test]
async fn the_announced_client_is_who_the_rules_and_the_instances_see() {
    let (proxy, instance) = site("127.0.0.0/8").await;
    assert_eq!(ask(&proxy, b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\n").await, 202);
    assert_eq!(ask(&proxy, b"PROXY TCP4 198.51.100.7 127.0.0.1 5000 80\r\n").await, 200);
    let mut six = [SIGNATURE, &[0x21, 0x21, 0, 36]].concat();
    six.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    six.extend([0; 20]);
    assert_eq!(ask(&proxy, &six).await, 200);
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    assert_eq!(ask(&proxy, &local).await, 200);
    assert_eq!(ask(&proxy, b"PROXY UNKNOWN\r\n").await, 200);
    let clients: Vec<_> = instance.requests().iter().map(|seen| seen.field("x-forwarded-for").unwrap()).collect();
    let own = "9.9.9.9, 127.0.0.1";
    assert_eq!(clients, ["198.51.100.7", "2001:db8::7", own, "127.0.0.1"], "a stranger's own chain is not believed");
}

#[tokio::test]
async fn a_head_may_come_in_pieces_and_the_next_requests_have_none() {
    let (proxy, _instance) = site("127.0.0.1/32").await;
    let mut client = proxy.client().await;
    for piece in ["PR", "OXY TCP4 203.0.1", "13.9 127.0.0.1 5000 80\r", "\nGET /x HTTP/1.1\r\nho"] {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.send("st: shop\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 202);
    client.send(GET).await;
    assert_eq!(client.reply().await.status, 202);
}

#[tokio::test]
async fn strangers_rubbish_and_silence_are_refused_and_counted() {
    let (proxy, instance) = site("127.0.0.1/32").await;
    let closed = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // A reset counts as an end.
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    };
    closed(GET.as_bytes()).await;
    closed(b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 99999\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    closed(b"PROXY TCP4 203.0.113").await;
    let (stranger, _other) = site("192.0.2.1/32").await;
    let mut client = Client::connect(stranger.address).await;
    client.send([&b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\n"[..], GET.as_bytes()].concat()).await;
    assert_eq!(client.reply().await.status, 0);
    for (proxy, line) in [
        (&proxy, "proxy_protocol_malformed\"} 2"),
        (&proxy, "proxy_protocol_timeout\"} 1"),
        (&stranger, "proxy_protocol_untrusted\"} 1"),
    ] {
        let wanted = format!("pointsman_refusals_total{{reason=\"{line}");
        soon(&wanted, async {
            while proxy.metric(&wanted).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert_eq!(instance.requests().len(), 0);
}
