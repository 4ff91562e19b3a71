//! The built binary as a user starts it: `pointsman run …` on free ports, its first line read, ended by its id.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a start, a stop or a condition may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy. Killed when dropped.
pub struct Proxy {
    child: Child,
    /// The first listener.
    pub listen: SocketAddr,
    /// All listeners.
    pub listens: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
    stderr: Arc<Mutex<String>>,
}

/// Where a proxy that says nothing else listens.
pub const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

impl Proxy {
    /// `pointsman run --listen 127.0.0.1:0 --admin 127.0.0.1:0 ARGS…`, ready to be asked (not yet `/ready`).
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(&[&ANY_PORTS, args].concat())
    }

    /// `pointsman run ARGS…`, whose listeners have port 0.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_in(&[], args)
    }

    /// The same with these variables in its environment.
    pub fn start_in(environment: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        // What is set around the tests is no setting of the proxy.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POINTSMAN_")) {
            command.env_remove(name);
        }
        let mut child = command
            .arg("run")
            .args(args)
            .env_remove("CONSUL_HTTP_ADDR")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("piped"), Arc::clone(&stderr));
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("standard output can be read");
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&first) else {
            std::thread::sleep(Duration::from_millis(200));
            panic!("no listening line but {first:?}; standard error: {}", stderr.lock().unwrap());
        };
        assert_eq!(line["event"], "listening");
        collect(stdout, Arc::new(Mutex::new(String::new())));
        let address = |value: &serde_json::Value| value.as_str().expect("an address").parse().expect("an address");
        let listens: Vec<SocketAddr> = line["listen"].as_array().expect("a list").iter().map(address).collect();
        Self { listen: listens[0], listens, admin: address(&line["admin"]), child, stderr }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name (`TERM`, `HUP`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the proxy does not end; its log: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}

/// Sends a signal to a process by its id.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut chunk = [0u8; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    });
}
