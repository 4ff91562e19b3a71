//! The process's own log: tracing to standard error, written off the caller's thread.

use std::io::{self, Write};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::line_writer::{self, LineCounts, LineFigures, LineThread, Lines, Target};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Lines that may wait for a slow pipe; further ones are dropped and counted.
const CAPACITY: usize = 4_096;

/// The log while it runs; keep it until the end of `main` and [`close`](Self::close) it.
#[derive(Debug)]
pub struct Log {
    lines: Lines<Vec<u8>>,
    thread: LineThread,
}

impl Log {
    /// Lines written, dropped and failed.
    #[must_use]
    pub fn counts(&self) -> &LineCounts {
        self.lines.counts()
    }

    /// The counts as metrics, under the label `process`.
    #[must_use]
    pub fn figures(&self) -> LineFigures<Vec<u8>> {
        LineFigures { log: "process", lines: self.lines.clone() }
    }

    /// Writes what waits, for at most a second. Whether all was written.
    pub fn close(&mut self) -> bool {
        self.thread.close(Duration::from_secs(1))
    }
}

/// Starts logging to standard error. `directives` are `tracing-subscriber`'s (`info,pointsman::catalog=debug`); the
/// environment variable `POINTSMAN_LOG` wins over them.
///
/// # Errors
/// The directives cannot be parsed, or logging was started before.
pub fn init(format: Format, directives: &str) -> io::Result<Log> {
    let written = std::env::var("POINTSMAN_LOG").unwrap_or_else(|_| directives.to_owned());
    // The watcher of files grumbles about folders that went; that is seen and handled anyway.
    let filter = EnvFilter::builder()
        .parse(format!("notify=error,{written}"))
        .map_err(|e| io::Error::other(format!("log filter: {e}")))?;
    let (lines, thread) = line_writer::spawn("log", &Target::Stderr, CAPACITY, |line: Vec<u8>, out: &mut Vec<u8>| {
        out.extend_from_slice(&line);
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(ToLines(lines.clone())).with_ansi(false);
    let started = match format {
        Format::Text => registry.with(layer).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    started.map_err(io::Error::other)?;
    Ok(Log { lines, thread })
}

/// Makes a buffer a line; the buffer goes to the writer's thread when the line is complete.
#[derive(Debug)]
struct ToLines(Lines<Vec<u8>>);

impl<'a> MakeWriter<'a> for ToLines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { bytes: Vec::with_capacity(256), lines: &self.0 }
    }
}

#[derive(Debug)]
struct Line<'a> {
    bytes: Vec<u8>,
    lines: &'a Lines<Vec<u8>>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.lines.send(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_control_characters_are_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (lines, mut thread) =
            line_writer::spawn("t", &Target::File(path.clone()), 8, |line: Vec<u8>, out: &mut Vec<u8>| {
                out.extend_from_slice(&line);
            })
            .unwrap();
        let layer = tracing_subscriber::fmt::layer().with_writer(ToLines(lines)).with_ansi(false).json();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(meta = "a\n\u{1b}[31m", "hello");
        });
        assert!(thread.close(Duration::from_secs(10)));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("hello"), "{text}");
    }
}
