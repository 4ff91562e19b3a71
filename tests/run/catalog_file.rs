//! The file catalog: an edit is the new catalog, a broken file keeps the old.

use crate::support::load::Load;
use crate::support::site::{Site, admin_get, until};

const RULES: &str = "service: web\npools: {all: version == 1.2}\nrules: [{name: all, to: [all]}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_catalog_file_is_the_new_catalog_and_a_broken_one_is_not() {
    let site = Site::new(&["web-1 version=1.2", "web-2 version=1.2"], RULES).await;
    site.write_catalog(|id| id == "web-1");
    let proxy = site.proxy(&[]).await;
    let load = Load::start(proxy.listen, "web.test", 200);
    until("the first instance answers", async || load.good() > 20).await;
    assert_eq!(load.bodies().len(), 1);

    site.write_catalog(|_| true);
    let took = until("the second instance answers", async || load.bodies().len() == 2).await;
    assert!(took.as_millis() < 1_500, "{took:?}");

    std::fs::write(site.catalog(), "services: {web: [{id: web-1, adress: 127.0.0.1, port: 1}]}").unwrap();
    until("the log says what is wrong", async || proxy.log().contains("adress")).await;
    let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
    assert_eq!(table["services"][0]["instances"].as_array().unwrap().len(), 2, "{table}");

    site.write_catalog(|id| id == "web-2");
    until("the first instance is gone", async || {
        let (_, table) = admin_get(proxy.admin, "/v1/table?service=web").await.unwrap();
        table["services"][0]["instances"].as_array().unwrap().len() == 1
    })
    .await;
    let tally = load.stop().await;
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}
