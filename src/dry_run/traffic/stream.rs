//! A traffic file through as many threads as wanted: one reads blocks of whole lines, the others take them as they come.
//! Memory is a few blocks, however long the file is; what is counted does not depend on who counted it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::{Captured, Format, detect, har};

/// Bytes of a block; a line must fit into one.
const BLOCK: usize = 1 << 20;
/// Lines that could not be read are shown up to here.
pub const SHOWN: usize = 5;

/// Counts requests on one thread.
pub trait Tally: Send {
    /// One request. Lines count from 1 (entries of an archive, too).
    fn request(&mut self, line: u64, captured: &Captured);

    /// Takes over what another thread counted.
    fn merge(&mut self, other: Self);
}

/// How to read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// `None`: from the file's beginning.
    pub format: Option<Format>,
    /// For lines that do not name a host.
    pub host: String,
    /// Threads that count; at least 1.
    pub threads: usize,
    /// End with the first line that cannot be read.
    pub strict: bool,
}

/// Lines that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first few: line and why.
    pub first: Vec<(u64, String)>,
}

/// What reading came to.
#[derive(Debug)]
pub struct Run<T> {
    /// The counts of all threads.
    pub tally: T,
    /// The format that was read.
    pub format: Format,
    /// Requests counted.
    pub requests: u64,
    /// Lines that could not be read.
    pub skipped: Skipped,
}

struct Block {
    first_line: u64,
    bytes: Vec<u8>,
}

/// Runs a file through tallies. `progress` is told of the lines that were read so far, after each block.
///
/// # Errors
/// The file cannot be read.
pub fn run<T: Tally>(
    mut input: impl Read,
    reading: &Reading,
    make: impl Fn() -> T + Sync,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Run<T>> {
    let mut beginning = vec![0; 64 << 10];
    let filled = fill(&mut input, &mut beginning)?;
    beginning.truncate(filled);
    let format = reading.format.unwrap_or_else(|| detect::detect(&beginning));
    let input = io::Cursor::new(beginning).chain(input);
    let threads = reading.threads.max(1);
    let (sender, receiver) = sync_channel(threads * 2);
    let (receiver, stop) = (Mutex::new(receiver), AtomicBool::new(false));
    let (sent, counted) = std::thread::scope(|scope| {
        let work = || count(&receiver, format, reading, &stop, make());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let feed = Feed { sender, stop: &stop, progress };
        let sent = if format == Format::Har { feed.archive(input) } else { feed.lines(input) };
        let counted: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        (sent, counted)
    });
    let mut all: Option<Counted<T>> = None;
    for counted in counted {
        let counted = counted.map_err(|_| io::Error::other("a counting thread panicked"))?;
        match &mut all {
            None => all = Some(counted),
            Some(all) => all.merge(counted),
        }
    }
    let unread = sent?;
    let mut all = all.ok_or_else(|| io::Error::other("nobody counted"))?;
    all.skipped.merge(unread);
    let Counted { tally, requests, skipped } = all;
    Ok(Run { tally, format, requests, skipped })
}

struct Counted<T> {
    tally: T,
    requests: u64,
    skipped: Skipped,
}

impl<T: Tally> Counted<T> {
    fn merge(&mut self, other: Self) {
        self.tally.merge(other.tally);
        self.requests += other.requests;
        self.skipped.merge(other.skipped);
    }
}

impl Skipped {
    fn add(&mut self, line: u64, why: String) {
        self.merge(Self { count: 1, first: vec![(line, why)] });
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.sort();
        self.first.truncate(SHOWN);
    }
}

/// One thread's work: block after block until there are no more.
fn count<T: Tally>(
    blocks: &Mutex<Receiver<Block>>,
    format: Format,
    reading: &Reading,
    stop: &AtomicBool,
    tally: T,
) -> Counted<T> {
    let mut counted = Counted { tally, requests: 0, skipped: Skipped::default() };
    loop {
        let block = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(block) = block else { return counted };
        for (at, line) in block.bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let number = block.first_line + at as u64;
            let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned());
            match text.and_then(|line| format.read(line, &reading.host)) {
                Ok(captured) => {
                    counted.requests += 1;
                    counted.tally.request(number, &captured);
                }
                Err(why) => {
                    counted.skipped.add(number, why);
                    if reading.strict {
                        stop.store(true, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
    }
}

/// The reading side.
struct Feed<'f> {
    sender: SyncSender<Block>,
    stop: &'f AtomicBool,
    progress: &'f mut dyn FnMut(u64),
}

impl Feed<'_> {
    /// Blocks of whole lines. A line longer than a block is skipped, and counted as such.
    fn lines(self, mut input: impl Read) -> io::Result<Skipped> {
        let (mut line, mut kept, mut skipped) = (1, Vec::new(), Skipped::default());
        let mut overlong = false;
        while !self.stop.load(Ordering::Relaxed) {
            let mut bytes: Vec<u8> = std::mem::take(&mut kept);
            let had = bytes.len();
            bytes.resize(BLOCK, 0);
            let got = fill(&mut input, &mut bytes[had..])?;
            bytes.truncate(had + got);
            let last = got < BLOCK - had;
            if overlong {
                let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                    if last {
                        break;
                    }
                    continue;
                };
                bytes.drain(..=end);
                (line, overlong) = (line + 1, false);
            }
            match bytes.iter().rposition(|byte| *byte == b'\n') {
                Some(end) if !last => {
                    kept = bytes[end + 1..].to_vec();
                    bytes.truncate(end + 1);
                }
                // What follows an overlong line is no whole block.
                None if !last && bytes.len() < BLOCK => {
                    kept = bytes;
                    continue;
                }
                None if !last => {
                    skipped.add(line, format!("longer than {} KiB", BLOCK >> 10));
                    overlong = true;
                    continue;
                }
                _ => {}
            }
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            if self.sender.send(Block { first_line: line, bytes }).is_err() {
                break;
            }
            line += lines;
            (self.progress)(line);
            if last {
                break;
            }
        }
        Ok(skipped)
    }

    /// The entries of an archive as lines.
    fn archive(self, input: impl Read) -> io::Result<Skipped> {
        let (mut line, mut block) = (1, Block { first_line: 1, bytes: Vec::new() });
        let mut each = |entry: String| {
            block.bytes.extend_from_slice(entry.as_bytes());
            block.bytes.push(b'\n');
            line += 1;
            if block.bytes.len() >= BLOCK / 4 {
                let full = std::mem::replace(&mut block, Block { first_line: line, bytes: Vec::new() });
                self.sender.send(full).map_err(|_| "nobody counts any more")?;
                (self.progress)(line);
            }
            if self.stop.load(Ordering::Relaxed) { Err("a line cannot be read".to_owned()) } else { Ok(()) }
        };
        let read = har::entries(input, &mut each);
        let left = self.sender.send(block);
        match read {
            // What cannot be read of an archive ends it.
            Err(error) if !self.stop.load(Ordering::Relaxed) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            _ => left.map(|()| Skipped::default()).map_err(io::Error::other),
        }
    }
}

/// Reads until the buffer is full or the input ends; gives how much.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Vec<(u64, String)>);

    impl Tally for Lines {
        fn request(&mut self, line: u64, captured: &Captured) {
            self.0.push((line, captured.request.path.clone()));
        }

        fn merge(&mut self, other: Self) {
            self.0.extend(other.0);
            self.0.sort();
        }
    }

    fn reading(threads: usize, strict: bool) -> Reading {
        Reading { format: None, host: "localhost".into(), threads, strict }
    }

    fn read(text: &[u8], reading: &Reading) -> Run<Lines> {
        run(text, reading, Lines::default, &mut |_| {}).unwrap()
    }

    #[test]
    fn every_line_is_counted_once_with_its_number_over_many_blocks() {
        let text: String =
            (1..=60_000).map(|n| format!("{{\"host\":\"a.example.com\",\"path\":\"/{n}\"}}\n")).collect();
        assert!(text.len() > 2 * BLOCK);
        let read = read(text.trim_end().as_bytes(), &reading(3, false));
        assert_eq!((read.requests, read.format, read.skipped.count), (60_000, Format::Traffic, 0));
        assert!(read.tally.0.iter().all(|(line, path)| path == &format!("/{line}")));
    }

    #[test]
    fn bad_lines_are_counted_and_the_first_shown() {
        let text: String =
            (1..=20).map(|n| if n % 2 == 0 { "{\"path\":1}\n".into() } else { "{}\n\n".to_owned() }).collect();
        let read = read(text.as_bytes(), &reading(2, false));
        assert_eq!((read.requests, read.skipped.count), (10, 10));
        assert_eq!(read.skipped.first.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 6, 9, 12, 15]);
        let strict = run(text.as_bytes(), &reading(1, true), Lines::default, &mut |_| {}).unwrap();
        assert_eq!((strict.skipped.first[0].0, strict.tally.0.len()), (3, 1));
    }

    #[test]
    fn a_line_longer_than_a_block_is_skipped_and_its_followers_keep_their_numbers() {
        let mut text = b"{\"path\":\"/1\"}\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 3 * BLOCK));
        text.extend(b"\n{\"path\":\"/3\"}\n");
        let read = read(&text, &reading(2, false));
        assert_eq!(read.tally.0, [(1, "/1".into()), (3, "/3".into())]);
        assert_eq!((read.skipped.count, read.skipped.first[0].0), (1, 2));
    }

    #[test]
    fn an_archive_is_read_entry_by_entry() {
        let entry = r#"{"request": {"method": "GET", "url": "http://a/x", "headers": []}}"#;
        let text = format!("{{\"log\": {{\"entries\": [{}]}}}}", vec![entry; 3].join(","));
        let read = read(text.as_bytes(), &reading(2, false));
        assert_eq!((read.format, read.requests), (Format::Har, 3));
        assert!(run(&b"{\"log\": {\"entries\": [3]}}"[..], &reading(1, false), Lines::default, &mut |_| {}).is_err());
    }
}
