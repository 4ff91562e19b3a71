//! A thread that writes lines, so that a slow disk or a blocked pipe costs lines and never a request.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::metrics::{Samples, Source};
use super::names;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; made when it is not there; opened again by [`Lines::reopen`].
    File(PathBuf),
}

impl Target {
    /// `stdout`, `stderr`, or a path.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }
}

/// Lines written, and lines that were not.
#[derive(Debug, Default)]
pub struct LineCounts {
    /// Written to the target.
    pub written: AtomicU64,
    /// Given up because the writer was behind.
    pub dropped: AtomicU64,
    /// Given up because the target refused them (disk full).
    pub failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    counts: LineCounts,
    reopen: AtomicBool,
    stop: AtomicBool,
}

/// The sending side: clone it freely. Items become lines on the writer's thread.
#[derive(Debug)]
pub struct Lines<T> {
    sender: SyncSender<T>,
    shared: Arc<Shared>,
}

impl<T> Clone for Lines<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<T> Lines<T> {
    /// Hands an item to the writer; drops and counts it when the writer is behind. Never waits.
    pub fn send(&self, item: T) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(item) {
            self.shared.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Counts an item that its maker gave up as dropped.
    pub fn give_up(&self) {
        self.shared.counts.dropped.fetch_add(1, Relaxed);
    }

    /// Asks the writer to open its file again (after a rotation).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
    }

    /// What became of the lines.
    #[must_use]
    pub fn counts(&self) -> &LineCounts {
        &self.shared.counts
    }
}

/// A log's counts as metrics: give it to [`Metrics::add_source`](super::metrics::Metrics::add_source).
#[derive(Debug)]
pub struct LineFigures<T> {
    /// The value of the label `log`.
    pub log: &'static str,
    /// Whose lines.
    pub lines: Lines<T>,
}

impl<T: Send + fmt::Debug> Source for LineFigures<T> {
    fn collect(&self, out: &mut Samples) {
        let counts = self.lines.counts();
        for (result, count) in [("written", &counts.written), ("dropped", &counts.dropped), ("failed", &counts.failed)]
        {
            out.counter(&names::LOG_LINES, &[self.log, result], count.load(Relaxed));
        }
    }
}

/// The owner of the writer's thread.
#[derive(Debug)]
pub struct LineThread {
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

impl LineThread {
    /// Lets the writer write what it has been given, for at most `limit`, then gives up on it. Whether all is written.
    pub fn close(&mut self, limit: Duration) -> bool {
        self.shared.stop.store(true, Relaxed);
        let Some(thread) = self.thread.take() else { return true };
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            return false;
        }
        thread.join().is_ok()
    }
}

/// How long the writer waits for a line before it looks whether it was told to reopen or to stop.
const TICK: Duration = Duration::from_millis(50);
/// A target that failed is opened again this often.
const RETRY: Duration = Duration::from_secs(1);
/// Lines gathered into one write.
const BATCH_BYTES: usize = 64 * 1024;

/// Starts a writer: at most `capacity` items wait; `format` appends an item's line, newline included.
///
/// # Errors
/// The file cannot be opened, or the thread cannot be started.
pub fn spawn<T: Send + 'static>(
    name: &str,
    target: &Target,
    capacity: usize,
    format: impl FnMut(T, &mut Vec<u8>) + Send + 'static,
) -> io::Result<(Lines<T>, LineThread)> {
    let sink = Sink { target: target.clone(), out: Some(open(target)?), failed_at: None };
    spawn_into(name, sink, capacity, format)
}

fn spawn_into<T: Send + 'static>(
    name: &str,
    sink: Sink,
    capacity: usize,
    format: impl FnMut(T, &mut Vec<u8>) + Send + 'static,
) -> io::Result<(Lines<T>, LineThread)> {
    let (sender, receiver) = sync_channel(capacity.max(1));
    let shared = Arc::new(Shared::default());
    let mut writer = Writer { receiver, shared: Arc::clone(&shared), sink, format };
    let (running, ended) = sync_channel(0);
    let run = move || {
        let _running: SyncSender<()> = running;
        writer.run();
    };
    let thread = Some(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
    Ok((Lines { sender, shared: Arc::clone(&shared) }, LineThread { thread, ended, shared }))
}

struct Sink {
    target: Target,
    out: Option<Box<dyn Write + Send>>,
    failed_at: Option<Instant>,
}

struct Writer<T, F> {
    receiver: Receiver<T>,
    shared: Arc<Shared>,
    sink: Sink,
    format: F,
}

impl<T, F: FnMut(T, &mut Vec<u8>)> Writer<T, F> {
    fn run(&mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            if self.shared.reopen.swap(false, Relaxed) {
                self.sink.reopen();
            }
            let first = match self.receiver.recv_timeout(TICK) {
                Ok(item) => item,
                Err(RecvTimeoutError::Timeout) if !self.shared.stop.load(Relaxed) => continue,
                Err(_) => return,
            };
            batch.clear();
            (self.format)(first, &mut batch);
            let mut lines = 1;
            while batch.len() < BATCH_BYTES {
                let Ok(item) = self.receiver.try_recv() else { break };
                (self.format)(item, &mut batch);
                lines += 1;
            }
            let counts = &self.shared.counts;
            let counter = if self.sink.write(&batch) { &counts.written } else { &counts.failed };
            counter.fetch_add(lines, Relaxed);
        }
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> bool {
        if self.out.is_none() && self.failed_at.is_none_or(|at| at.elapsed() >= RETRY) {
            self.reopen();
        }
        let Some(out) = &mut self.out else { return false };
        let result = out.write_all(bytes).and_then(|()| out.flush());
        if result.is_err() {
            self.out = None;
            self.failed_at = Some(Instant::now());
        }
        result.is_ok()
    }

    fn reopen(&mut self) {
        match open(&self.target) {
            Ok(out) => (self.out, self.failed_at) = (Some(out), None),
            // The old file, if there is one, is better than none.
            Err(_) => self.failed_at = Some(Instant::now()),
        }
    }
}

fn open(target: &Target) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::Stderr => Box::new(io::stderr()),
        Target::File(path) => Box::new(append(path)?),
    })
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::{Metrics, Settings};

    /// A target that takes a line only when it is let.
    struct Gate(Receiver<()>, SyncSender<usize>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(bytes.len());
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn copy(item: Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(&item);
    }

    #[test]
    fn a_blocked_target_costs_lines_and_no_waiting() {
        let (open_gate, gate) = sync_channel(64);
        let (entered, in_write) = sync_channel(64);
        let sink = Sink { target: Target::Stderr, out: Some(Box::new(Gate(gate, entered))), failed_at: None };
        let (lines, mut thread) = spawn_into("t", sink, 4, copy).unwrap();
        lines.send(b"x\n".to_vec());
        in_write.recv().unwrap();
        for _ in 0..10 {
            lines.send(b"x\n".to_vec());
        }
        assert_eq!(lines.counts().dropped.load(Relaxed), 6, "four wait, six found no place");
        assert!(!thread.close(Duration::from_millis(20)), "closing does not wait for a blocked pipe");
        drop(open_gate);
    }

    #[test]
    fn a_rotated_file_is_left_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let (lines, mut thread) = spawn("t", &Target::File(path.clone()), 16, copy).unwrap();
        lines.send(b"one\n".to_vec());
        while lines.counts().written.load(Relaxed) < 1 {
            std::thread::yield_now();
        }
        let rotated = folder.path().join("a.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        lines.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        lines.send(b"two\n".to_vec());
        assert!(thread.close(Duration::from_secs(10)));
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
    }

    #[test]
    fn a_full_disk_is_counted_and_recovered_from() {
        let (lines, mut thread) = spawn("t", &Target::File("/dev/full".into()), 16, copy).unwrap();
        lines.send(b"x\n".to_vec());
        assert!(thread.close(Duration::from_secs(10)));
        let metrics = Metrics::new(1, Settings::default());
        metrics.add_source(Arc::new(LineFigures { log: "access", lines }));
        let text = metrics.render();
        assert!(text.contains(r#"pointsman_log_lines_total{log="access",result="failed"} 1"#), "{text}");
    }
}
