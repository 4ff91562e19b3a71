//! The access log: one traffic line a request (CLI.md, *Traffic file*), written off the request's thread.
//!
//! A worker asks [`AccessLog::wants`], fills a [`Record`] and sends it; the writer's thread makes the line.

mod fields;
mod format;
mod record;

use std::io;

use crate::engine::policy::WHOLE;
use crate::engine::time::Draw;

use super::line_writer::{self, LineCounts, LineFigures, LineThread, Lines, Target};
pub use fields::ReadFields;
pub use format::Formatter;
pub use record::{Answer, Copied, Durations, Place, Record};

/// What is logged and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `stdout`, `stderr` or a file.
    pub target: Target,
    /// Parts per million of requests; [`WHOLE`] is all. Answers of our own errors (5xx) are always logged.
    pub sample: u32,
    /// Lines that may wait for the writer. Default 16,384.
    pub capacity: usize,
    /// Fields whose value is replaced by a keyed hash: `cookie.NAME`, `header.NAME`, `client`, `query`.
    pub redact: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { target: Target::Stdout, sample: WHOLE, capacity: 16_384, redact: Vec::new() }
    }
}

/// The handle that workers hold; cheap to clone. Absent (`Option`) when the log is off.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Lines<Box<Record>>,
    sample: u32,
}

/// The stream of [`Draw`] that decides what is sampled.
const SAMPLE_STREAM: u64 = 0x10_6000;

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(settings: &Settings) -> io::Result<(Self, LineThread)> {
        let mut formatter = Formatter::new(&settings.redact);
        let (lines, thread) = line_writer::spawn(
            "access-log",
            &settings.target,
            settings.capacity,
            move |record: Box<Record>, out: &mut Vec<u8>| formatter.line(&record, out),
        )?;
        Ok((Self { lines, sample: settings.sample }, thread))
    }

    /// Whether this request is to be logged. The same draw gives the same answer; server errors always are.
    #[must_use]
    pub fn wants(&self, draw: Draw, status: u16) -> bool {
        self.sample >= WHOLE
            || status >= 500
            || draw.fork(SAMPLE_STREAM).below(u64::from(WHOLE)) < u64::from(self.sample)
    }

    /// Hands a record to the writer; never waits, drops and counts when it is behind.
    pub fn send(&self, record: Box<Record>) {
        self.lines.send(record);
    }

    /// Asks for the file to be opened again (SIGHUP).
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// The counts as metrics, under the label `access`.
    #[must_use]
    pub fn figures(&self) -> LineFigures<Box<Record>> {
        LineFigures { log: "access", lines: self.lines.clone() }
    }

    /// Lines written, dropped and failed.
    #[must_use]
    pub fn counts(&self) -> &LineCounts {
        self.lines.counts()
    }
}

#[cfg(test)]
mod tests;
