//! nginx as an instance: static files, its own 404, kept connections, uploads to its disk, and its restart under load.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ground::{Ground, Service};
use crate::ports::unused;
use crate::support::binary::signal;
use crate::support::load::{Load, get};
use crate::support::site::until;
use crate::tools::tool;

/// A running nginx that serves `files/` of its folder and takes PUTs into it. Killed when dropped.
pub struct Nginx {
    folder: PathBuf,
    pub port: u16,
    child: Child,
}

impl Nginx {
    pub fn start(within: &Path, name: &str) -> Self {
        Self::with(within, name, "")
    }

    /// `more`: further servers, in nginx's words.
    pub fn with(within: &Path, name: &str, more: &str) -> Self {
        let folder = within.join(name);
        std::fs::create_dir_all(folder.join("files")).unwrap();
        std::fs::write(folder.join("files/name.txt"), format!("{name}\n")).unwrap();
        let port = unused().port();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid AT/pid; error_log AT/error.log;
             events {{ worker_connections 512; }}
             http {{
               access_log AT/access.log; client_body_temp_path AT/body; proxy_temp_path AT/proxy;
               fastcgi_temp_path AT/fastcgi; uwsgi_temp_path AT/uwsgi; scgi_temp_path AT/scgi;
               server {{ listen 127.0.0.1:{port}; root AT/files; dav_methods PUT; client_max_body_size 0; sendfile on;
                 location = / {{ return 200 \"{name}\"; }} }}
               {more}
             }}"
        );
        std::fs::write(folder.join("nginx.conf"), config.replace("AT", folder.to_str().unwrap())).unwrap();
        let child = launch(&folder, port);
        Self { folder, port, child }
    }

    /// A file that it serves.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("files").join(name)
    }

    /// Connections and requests in its access log.
    pub fn requests(&self) -> usize {
        std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default().lines().count()
    }

    /// SIGQUIT (what runs is finished) or SIGTERM (it is not), then a new one on the same port.
    pub fn restart(&mut self, how: &str) {
        signal(self.child.id(), how);
        self.child.wait().unwrap();
        self.child = launch(&self.folder, self.port);
    }
}

fn launch(folder: &Path, port: u16) -> Child {
    let child = Command::new(tool("nginx"))
        .args(["-p", folder.to_str().unwrap(), "-e", "error.log", "-c", "nginx.conf"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx starts");
    let start = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let told = || std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
        assert!(start.elapsed() < Duration::from_secs(20), "nginx does not listen: {}", told());
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its worker too.
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_serves_files_its_own_404_and_keeps_connections() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), "one");
    let ground = Ground::new(&[Service::new("web", &[nginx.port])], "").await;
    let mut kept = None;
    for _ in 0..50 {
        let answer = get(ground.plain, "web.shop.test", "/name.txt", &mut kept).await.unwrap();
        assert_eq!(answer, (200, "one".to_owned()));
    }
    let (status, page) = get(ground.plain, "web.shop.test", "/no/such/file", &mut kept).await.unwrap();
    assert!(status == 404 && page.contains("<center>nginx"), "{status} {page}");
    // nginx writes its log after it has answered.
    until("51 requests", async || nginx.requests() == 51).await;
    let opened = ground.metric("pointsman_upstream_connections_opened_total").await;
    assert!((1.0..=4.0).contains(&opened), "{opened} connections for 51 requests one after the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_fails_while_one_of_two_nginxes_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, two) = (Nginx::start(folder.path(), "one"), Nginx::start(folder.path(), "two"));
    let ground = Ground::new(&[Service::new("web", &[one.port, two.port])], "").await;
    let load = Load::start(ground.plain, "web.shop.test", 400);
    for how in ["QUIT", "TERM", "QUIT", "TERM"] {
        let before = load.good();
        until("the load goes on", async || load.good() > before + 100).await;
        one = tokio::task::spawn_blocking(move || {
            one.restart(how);
            one
        })
        .await
        .unwrap();
    }
    let tally = load.stop().await;
    assert!(tally.bad.is_empty() && tally.good > 400, "{} good, {:?}", tally.good, tally.bad);
    assert_eq!(tally.bodies.len(), 2, "both were asked: {:?}", tally.bodies);
}
