//! What the configuration's `paths` refuse, the proxy and both ways to explain refuse alike.

use std::process::Command;

use crate::support::load::get;
use crate::support::site::{Site, admin_post, ready, replace};

const RULES: &str = "service: web\npools: {all: id exists}\nrules:\n  - {name: admin, when: path under \"/admin\", \
                     respond: {status: 403}}\n  - {name: all, to: [all]}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_a_parameter_is_refused_by_the_proxy_and_by_both_explanations() {
    let site = Site::new(&["web-1 version=1"], RULES).await;
    let config = site.path("pointsman.yaml");
    let words = "[encoded_slash, backslash, control, invalid, dot_parameter, parameter]";
    replace(&config, &format!("paths: {{refuse: {words}}}\n"));
    let proxy = site.proxy(&["--config", config.to_str().unwrap()]).await;
    ready(proxy.admin).await;
    for (path, refused) in [("/admin;x/y", true), ("/a%3Bb", true), ("/..;/a", true), ("/a?b;c", false)] {
        let status = get(proxy.listen, "web.test", path, &mut None).await.unwrap().0;
        assert_eq!(status, if refused { 400 } else { 200 }, "{path}");

        let line = serde_json::json!({"method": "GET", "host": "web.test", "path": path}).to_string();
        let (status, said) = admin_post(proxy.admin, "/v1/explain", &line).await;
        assert_eq!((status == 400, said.to_string().contains("has a parameter")), (refused, refused), "{path}: {said}");

        let program = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["explain", "--config", config.to_str().unwrap(), "--rules", site.rules().to_str().unwrap()])
            .args(["--catalog", site.catalog().to_str().unwrap(), "GET", &format!("http://web.test{path}")])
            .output()
            .unwrap();
        let said = String::from_utf8([program.stdout, program.stderr].concat()).unwrap();
        let status = program.status.code();
        assert_eq!((status, said.contains("has a parameter")), (Some(if refused { 2 } else { 0 }), refused), "{said}");
    }
}
