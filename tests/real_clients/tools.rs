//! Other people's programs: where they are, run to their end within a bound, or in the background.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A program by name: from the folder `$CLIENTS_FOR_TESTS`, or from the PATH and the administrator's folders.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::var_os("CLIENTS_FOR_TESTS").map(PathBuf::from).into_iter().collect();
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} here: export CLIENTS_FOR_TESTS=$(scripts/clients.sh)"))
}

/// A script of tests/python, to be run by a Python that has what it wants.
pub fn python(script: &str) -> Command {
    let python = std::env::var_os("PYTHON_FOR_TESTS").map(PathBuf::from).unwrap_or_else(|| {
        // What scripts/python.sh has made before.
        let made =
            Path::new(env!("CARGO_BIN_EXE_pointsman")).ancestors().nth(2).unwrap().join("tools/python/bin/python");
        assert!(made.is_file(), "no Python with grpcio and websockets: export PYTHON_FOR_TESTS=$(scripts/python.sh)");
        made
    });
    let mut command = Command::new(python);
    command.arg("-u").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script));
    // grpcio asks these; loopback needs no proxy in between.
    for name in ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end, which must come within `longest`, with success: what it printed.
pub fn run(command: &mut Command, longest: Duration) -> String {
    let output = end_of(command, longest);
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{told}\n{wrong}", output.status);
    told.into_owned()
}

/// Runs it to its end, good or bad, which must come within `longest`.
pub fn end_of(command: &mut Command, longest: Duration) -> Output {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let (out, err) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > longest {
            let _ = child.kill();
            let _ = child.wait();
            let (out, err) = (out.join().unwrap(), err.join().unwrap());
            let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
            panic!("{shown} has not ended within {longest:?}; it said: {out}\n{err}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

/// A program in the background whose lines are read as they come. Killed when dropped.
pub struct Background {
    child: Child,
    output: Arc<Mutex<BufReader<ChildStdout>>>,
    what: OsString,
}

impl Background {
    pub fn start(mut command: Command) -> Self {
        let what = command.get_args().last().unwrap_or(command.get_program()).to_owned();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = Arc::new(Mutex::new(BufReader::new(child.stdout.take().unwrap())));
        Self { child, output, what }
    }

    /// Its next line.
    ///
    /// # Panics
    /// When there is none within 60 s.
    pub fn line(&mut self) -> String {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let output = Arc::clone(&self.output);
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = output.lock().unwrap().read_line(&mut line);
            let _ = send.send(line);
        });
        let line = receive.recv_timeout(Duration::from_secs(60));
        line.unwrap_or_else(|_| panic!("no line of {:?}", self.what)).trim().to_owned()
    }

    /// Its lines until it closes its output; then it must end well.
    pub fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => break,
                line => lines.push(line),
            }
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{:?}: {status}; {lines:?}", self.what);
        lines
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
