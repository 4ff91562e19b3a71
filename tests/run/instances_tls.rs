//! TLS towards instances, by the built binary: what a label asks for, files that change on disk, and who is not checked.

use std::net::SocketAddr;

use crate::front::{Authority, Front, Tls};
use crate::support::binary::Proxy;
use crate::support::faulty::Faulty;
use crate::support::load::get;
use crate::support::site::{Site, admin_get, replace, until};

const RULES: &str = "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";

fn of(front: &Front, labels: &str) -> String {
    let addr: SocketAddr = front.url().rsplit('/').next().unwrap().parse().unwrap();
    let port = addr.port();
    format!(
        "services:\n  web:\n    - {{id: web-1, address: 127.0.0.1, port: {port}, labels: {{version: \"1\"{labels}}}}}\n"
    )
}

async fn status(proxy: &Proxy) -> u16 {
    get(proxy.listen, "web.test", "/", &mut None).await.map_or(0, |reply| reply.0)
}

async fn page(proxy: &Proxy) -> String {
    let page = admin_get(proxy.admin, "/metrics").await.unwrap().1;
    page.as_str().unwrap().to_owned()
}

async fn reloads(proxy: &Proxy, result: &str) -> u64 {
    reloads_of(proxy, "upstream_tls", result).await
}

async fn reloads_of(proxy: &Proxy, what: &str, result: &str) -> u64 {
    let series = format!("pointsman_reload_total{{what=\"{what}\",result=\"{result}\"}} ");
    page(proxy).await.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_label_says_https_answers_the_first_request() {
    let authority = Authority::new("the system's");
    let behind = Faulty::start("web-1").await;
    let identity = authority.issue("127.0.0.1");
    let front = Front::tls(behind.addr, Tls { identity: &identity, clients: None, h2: false }).await;
    let site = Site::new(&[], RULES).await;
    let roots = site.path("system.pem");
    authority.write(&roots);
    replace(&site.catalog(), &of(&front, ", scheme: https"));
    let proxy = site.proxy_with(&[("SSL_CERT_FILE", roots.to_str().unwrap())], &[]).await;
    assert_eq!(status(&proxy).await, 200, "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_replaced_on_disk_is_believed_and_a_broken_file_changes_nothing() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let behind = Faulty::start("web-1").await;
    let (old, new) = (first.issue("web.test"), second.issue("web.test"));
    let front = Front::tls(behind.addr, Tls { identity: &old, clients: None, h2: false }).await;
    let site = Site::new(&[], RULES).await;
    let ca = site.path("ca.pem");
    first.write(&ca);
    site.write_rules(&format!("upstream: {{tls: {{ca: {}, name: web.test}}}}\n{RULES}", ca.display()));
    replace(&site.catalog(), &of(&front, ""));
    let proxy = site.proxy(&[]).await;
    assert_eq!(status(&proxy).await, 200);

    front.change(Tls { identity: &new, clients: None, h2: false });
    until("the stranger is not believed", async || status(&proxy).await == 502).await;
    let before = reloads(&proxy, "ok").await;
    let next = site.path("next.pem");
    second.write(&next);
    replace(&ca, &std::fs::read_to_string(&next).unwrap());
    until("the file has been read again", async || reloads(&proxy, "ok").await > before).await;
    // It may have been ejected meanwhile; a request proves it then.
    until("the new authority is believed", async || status(&proxy).await == 200).await;

    replace(&ca, "no certificate");
    until("the broken file is told of", async || reloads(&proxy, "failed").await > 0).await;
    front.change(Tls { identity: &new, clients: None, h2: false });
    until("what was in force stays in force", async || status(&proxy).await == 200).await;
    let before = reloads(&proxy, "failed").await;
    proxy.signal("HUP");
    until("SIGHUP reads it again", async || reloads(&proxy, "failed").await > before).await;

    // Nobody names the broken file any more.
    site.write_rules(RULES);
    until("the rules are in force", async || status(&proxy).await == 502).await;
    let (failed, rules) = (reloads(&proxy, "failed").await, reloads_of(&proxy, "rules", "ok").await);
    proxy.signal("HUP");
    until("SIGHUP is followed", async || reloads_of(&proxy, "rules", "ok").await > rules).await;
    assert_eq!(reloads(&proxy, "failed").await, failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_checked_is_counted_by_the_rules_in_force() {
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let unchecked = format!("upstream: {{tls: {{verify: false}}}}\n{RULES}");
    let candidate = site.path("candidate.yaml");
    replace(&candidate, &unchecked);
    let proxy = site.proxy(&["--shadow-rules", candidate.to_str().unwrap()]).await;
    let counts = async |value: u8| {
        page(&proxy).await.contains(&format!("pointsman_upstream_unverified{{service=\"web\"}} {value}"))
    };
    until("the shadow rules are there", async || {
        admin_get(proxy.admin, "/v1/shadow").await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    assert!(counts(0).await && !proxy.log().contains("`upstream.tls.verify` is false"), "rules beside say nothing");
    site.write_rules(&unchecked);
    until("the rules in force say so", async || counts(1).await).await;
    assert!(proxy.log().contains("`upstream.tls.verify` is false"));
    site.write_rules(RULES);
    until("it is over", async || counts(0).await).await;
}
