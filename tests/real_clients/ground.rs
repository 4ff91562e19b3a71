//! The built proxy with three listeners (plain, TLS, TLS with client certificates) before services of one instance or
//! several, each reached as `SERVICE.shop.test`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::front::Authority;
use crate::support::binary::Proxy;
use crate::support::site::ready;

const ROUTE: &str = "pools: {all: id exists}\nrules: [{name: all, to: [all]}]";

/// One service: its name, the ports of its instances, their labels, and the rest of its
/// rule file.
pub struct Service<'s> {
    pub name: &'s str,
    pub ports: &'s [u16],
    pub labels: &'s str,
    pub route: &'s str,
}

impl<'s> Service<'s> {
    pub fn new(name: &'s str, ports: &'s [u16]) -> Self {
        Self { name, ports, labels: "", route: ROUTE }
    }
}

/// The running proxy and its files.
pub struct Ground {
    pub folder: tempfile::TempDir,
    pub proxy: Proxy,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// Wants a certificate that `clients` has signed.
    pub mutual: SocketAddr,
}

impl Ground {
    /// `more`: further top-level settings.
    pub async fn new(services: &[Service<'_>], more: &str) -> Self {
        Self::with(tempfile::tempdir().unwrap(), services, more).await
    }

    /// In a folder that is there.
    pub async fn with(folder: tempfile::TempDir, services: &[Service<'_>], more: &str) -> Self {
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("rules")).unwrap();
        let mut catalog = "services:\n".to_owned();
        for Service { name, ports, labels, route } in services {
            let _ = writeln!(catalog, "  {name}:");
            for port in *ports {
                let _ = writeln!(
                    catalog,
                    "    - {{id: {name}-{port}, address: 127.0.0.1, port: {port}, labels: {{on: \"1\", {labels}}}}}"
                );
            }
            let text = format!("service: {name}\nhosts: [{name}.shop.test]\n{route}\n");
            std::fs::write(at("rules").join(format!("{name}.yaml")), text).unwrap();
        }
        std::fs::write(at("catalog.yaml"), catalog).unwrap();
        let (authority, clients) = (Authority::new("the servers'"), Authority::new("the clients'"));
        authority.write(&at("ca.pem"));
        clients.write(&at("clients.pem"));
        authority.issue("web.shop.test").write(&at("web.pem"), &at("web.key"));
        authority.issue("*.shop.test").write(&at("any.pem"), &at("any.key"));
        clients.issue("alice.clients.test").write(&at("alice.pem"), &at("alice.key"));
        let (web, any) = ("{cert: AT/web.pem, key: AT/web.key}", "{cert: AT/any.pem, key: AT/any.key}");
        let config = format!(
            "listen:\n  - {{address: \"127.0.0.1:0\"}}\n  - {{address: \"127.0.0.1:0\", tls: {{certificates: [{any}, {web}]}}}}\n  \
             - {{address: \"127.0.0.1:0\", tls: {{certificates: [{any}], client: {{ca: AT/clients.pem}}}}}}\n\
             admin: {{address: \"127.0.0.1:0\"}}\ncatalog: {{file: AT/catalog.yaml}}\nrules: AT/rules\n{more}\n"
        );
        std::fs::write(at("pointsman.yaml"), config.replace("AT", folder.path().to_str().unwrap())).unwrap();
        let proxy = Proxy::start_with(&["--config", at("pointsman.yaml").to_str().unwrap()]);
        ready(proxy.admin).await;
        let (plain, tls, mutual) = (proxy.listens[0], proxy.listens[1], proxy.listens[2]);
        Self { folder, proxy, plain, tls, mutual }
    }

    /// A file of the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A metric's value, all its series summed.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, page) = crate::support::site::admin_get(self.proxy.admin, "/metrics").await.unwrap();
        let page = page.as_str().unwrap_or_default().to_owned();
        let of_it =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
