//! nginx as an instance of HTTP/2, as the rule file says: in the clear and over TLS; to clients of both versions.

use std::time::Duration;

use crate::curl::curl;
use crate::front::Authority;
use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::ports::unused;
use crate::tools::run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rule_file_says_what_is_spoken_with_instances() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let instances = Authority::new("the instances'");
    instances.write(folder.path().join("instances.pem").as_path());
    instances.issue("web.internal").write(at("n.pem").as_ref(), at("n.key").as_ref());
    let (h2c, both) = (unused().port(), unused().port());
    let answer = "location / { return 200 \"$server_protocol $scheme $request_method\"; }";
    let servers = format!(
        "server {{ listen 127.0.0.1:{h2c} http2; {answer} }}
         server {{ listen 127.0.0.1:{both} ssl http2; ssl_certificate {}; ssl_certificate_key {}; {answer} }}",
        at("n.pem"),
        at("n.key")
    );
    let _nginx = Nginx::with(folder.path(), "one", &servers);
    let tls = format!("{{ca: {}, name: web.internal}}", at("instances.pem"));
    let all = "pools: {all: id exists}\nrules: [{name: all, to: [all]}]";
    let routes = [
        format!("upstream: {{protocol: h2}}\n{all}"),
        format!("upstream: {{protocol: h2, tls: {tls}}}\n{all}"),
        format!("upstream: {{protocol: http1, tls: {tls}}}\n{all}"),
        format!("upstream: {{tls: {tls}}}\n{all}"),
    ];
    let (h2c, both) = ([h2c], [both]);
    let expected = ["HTTP/2.0 http GET", "HTTP/2.0 https GET", "HTTP/1.1 https GET", "HTTP/1.1 https GET"];
    let services = [
        Service { route: &routes[0], ..Service::new("clear", &h2c) },
        Service { route: &routes[1], ..Service::new("secure", &both) },
        Service { route: &routes[2], ..Service::new("old", &both) },
        Service { route: &routes[3], ..Service::new("auto", &both) },
    ];
    let ground = Ground::new(&services, "").await;
    for (service, wanted) in services.iter().zip(expected) {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let mut ask = curl(&format!("http://{}.shop.test/", service.name), ground.plain, &[version]);
            let told = tokio::task::spawn_blocking(move || run(&mut ask, Duration::from_secs(30))).await.unwrap();
            assert_eq!(told, wanted, "{} {version}", service.name);
        }
    }
}
