//! A sample instance as a process of its own, so that it can be killed as processes are.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A running `examples/instance.rs`. Killed when dropped.
pub struct InstanceProcess {
    child: Child,
    id: String,
    labels: Vec<String>,
    /// Where it listens; the same after a restart.
    pub addr: SocketAddr,
    posts: Arc<Mutex<Vec<String>>>,
}

impl InstanceProcess {
    /// Starts it on a free port.
    pub fn start(id: &str, labels: &[&str]) -> Self {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let posts = Arc::default();
        let (child, addr) = spawn(0, id, &labels, &posts);
        Self { child, id: id.to_owned(), labels, addr, posts }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Starts it again on its port.
    pub fn start_again(&mut self) {
        (self.child, _) = spawn(self.addr.port(), &self.id, &self.labels, &self.posts);
    }

    /// The `x-id` of every POST that it was sent, in all its lives.
    pub fn posts(&self) -> Vec<String> {
        self.posts.lock().unwrap().clone()
    }
}

impl Drop for InstanceProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, id: &str, labels: &[String], posts: &Arc<Mutex<Vec<String>>>) -> (Child, SocketAddr) {
    let proxy = PathBuf::from(env!("CARGO_BIN_EXE_pointsman"));
    let binary = proxy.parent().expect("it is in a folder").join("examples/instance");
    let mut child = Command::new(&binary)
        .args([&port.to_string(), id])
        .args(labels)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo build --examples` makes it", binary.display()));
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let addr = lines.next().expect("it says where it listens").expect("text").parse().expect("an address");
    let posts = Arc::clone(posts);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(id) = line.strip_prefix("POST ") {
                posts.lock().unwrap().push(id.to_owned());
            }
        }
    });
    (child, addr)
}
