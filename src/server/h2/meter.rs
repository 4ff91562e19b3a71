//! What a client's frames are, read beside the library, which says neither that a head is not whole nor how much came that
//! asks for nothing (RFC 9113, 4.1 and 10.5).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::io::{PREFACE, Transport, Watched};
use super::table::Table;
use crate::engine::time::Millis;
use crate::forward::Connection;
use crate::forward::connection::NEVER;

/// The window in which frames are counted.
const WINDOW_MS: u64 = 10_000;
/// One frame that carries nothing is allowed for so many bytes that go either way: who measures a connection with PINGs
/// does so as data comes.
const BYTES_FOR_ONE: u64 = 64;
/// Frames that open a window, for each DATA frame that was sent: a client opens its stream's and the connection's
/// (Envoy's `max_inbound_window_update_frames_per_data_frame_sent`).
const WINDOWS_FOR_DATA: u64 = 10;
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// `END_STREAM` of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;
/// Of HEADERS: a length before the block, and as many bytes behind it; what it depends on.
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// One connection's frames, as they come in.
#[derive(Debug)]
pub struct Meter {
    allowed: u64,
    at: RefCell<Frame>,
    sent: RefCell<Frame>,
    /// Since when a head is not whole; `NEVER`: there is none.
    head_since: Cell<Millis>,
    /// When the window began, what came in it that carries nothing, and what makes up for it.
    window: Cell<Millis>,
    idle: Cell<u64>,
    moved: Cell<u64>,
    /// Frames that open a window, and what they may be for: DATA frames that were sent, in this window and the one before.
    windows: Cell<u64>,
    data: Cell<u64>,
    data_before: Cell<u64>,
    uploaded: Cell<u64>,
    /// Requests that began, and the last one's stream.
    requests: Cell<u64>,
    last: Cell<u32>,
    /// Bytes that came, and what the client's table of fields holds of them.
    came: Cell<u64>,
    table: RefCell<Table>,
}

/// Where in a frame the next byte belongs.
#[derive(Debug)]
struct Frame {
    preface: usize,
    header: [u8; HEADER],
    have: usize,
    left: usize,
    /// A header block goes on in the next frame.
    open: bool,
}

impl Meter {
    /// A connection's, before its preface. `allowed`: frames that carry nothing, in 10 s.
    #[must_use]
    pub fn new(allowed: u32, now: Millis) -> Self {
        Self {
            allowed: u64::from(allowed),
            at: RefCell::new(Frame::after(PREFACE.len())),
            sent: RefCell::new(Frame::after(0)),
            head_since: Cell::new(NEVER),
            window: Cell::new(now),
            idle: Cell::new(0),
            moved: Cell::new(0),
            windows: Cell::new(0),
            data: Cell::new(0),
            data_before: Cell::new(0),
            uploaded: Cell::new(0),
            requests: Cell::new(0),
            last: Cell::new(0),
            came: Cell::new(0),
            table: RefCell::default(),
        }
    }

    /// Bytes came from the client.
    pub fn read(&self, bytes: &[u8], now: Millis) {
        let mut at = self.at.borrow_mut();
        self.turn(now);
        add(&self.came, bytes.len() as u64);
        at.walk(bytes, |frame, piece| match piece {
            None => self.begin(frame),
            Some(piece) if matches!(frame.header[3], HEADERS | CONTINUATION) => {
                self.table.borrow_mut().read(piece, self.came.get());
            }
            Some(_) => {}
        });
        let kind = at.header[3];
        let in_block = at.left > 0 && matches!(kind, HEADERS | CONTINUATION);
        let is_open = at.open || in_block || at.have > 0;
        if !is_open {
            self.head_since.set(NEVER);
        } else if self.head_since.get() == NEVER {
            self.head_since.set(now);
        }
    }

    /// Bytes went to the client.
    pub fn wrote(&self, bytes: &[u8]) {
        add(&self.moved, bytes.len() as u64);
        let is_data = |frame: &Frame| u64::from(frame.header[3] == DATA && frame.left > 0);
        self.sent.borrow_mut().walk(bytes, |frame, piece| {
            if piece.is_none() {
                add(&self.data, is_data(frame));
            }
        });
    }

    /// Bytes of bodies that came, of all streams.
    #[must_use]
    pub fn uploaded(&self) -> u64 {
        self.uploaded.get()
    }

    /// Bytes that the client's table of fields holds.
    #[must_use]
    pub fn remembered(&self) -> u64 {
        self.table.borrow().held()
    }

    /// Requests whose head came as a whole, good or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.get() - u64::from(self.head_since.get() != NEVER && self.requests.get() > 0)
    }

    /// Since when half a head is there; `NEVER`: there is none.
    #[must_use]
    pub fn head_since(&self) -> Millis {
        self.head_since.get()
    }

    /// Whether more frames came that carry nothing, or open windows that nothing has filled, than the client may send.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        let filled = self.data.get() + self.data_before.get();
        self.idle.get() > self.allowed + self.moved.get() / BYTES_FOR_ONE
            || self.windows.get() > self.allowed + filled * WINDOWS_FOR_DATA
    }

    /// A frame's header is whole.
    fn begin(&self, at: &mut Frame) {
        let (kind, flags) = (at.header[3], at.header[4]);
        let mut table = self.table.borrow_mut();
        table.frame(at.left);
        if matches!(kind, HEADERS | CONTINUATION) {
            let is_first = kind == HEADERS;
            table.begin(at.left, is_first && flags & PADDED != 0, is_first && flags & PRIORITY != 0);
        }
        match kind {
            HEADERS | PUSH_PROMISE => {
                at.open = flags & END_HEADERS == 0;
                let [.., a, b, c, d] = at.header;
                let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
                if stream > self.last.get() {
                    self.last.set(stream);
                    add(&self.requests, 1);
                }
                // A request makes up for what comes with it: its reset, a priority.
                add(&self.moved, BYTES_FOR_ONE);
            }
            CONTINUATION => {
                at.open = flags & END_HEADERS == 0;
                add(&self.idle, u64::from(at.left == 0 && at.open));
            }
            DATA if at.left > 0 || flags & END_STREAM != 0 => {
                add(&self.moved, at.left as u64);
                add(&self.uploaded, at.left as u64);
            }
            WINDOW_UPDATE => add(&self.windows, 1),
            _ => add(&self.idle, 1),
        }
    }

    fn turn(&self, now: Millis) {
        if now.since(self.window.get()) >= WINDOW_MS {
            self.window.set(now);
            self.idle.set(0);
            self.moved.set(0);
            self.windows.set(0);
            self.data_before.set(self.data.take());
        }
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

impl Frame {
    fn after(preface: usize) -> Self {
        Self { preface, header: [0; HEADER], have: 0, left: 0, open: false }
    }

    /// Goes over bytes of any cut; `tell` is told of each frame whose header is whole, and of each piece of its payload.
    fn walk(&mut self, mut bytes: &[u8], mut tell: impl FnMut(&mut Self, Option<&[u8]>)) {
        while !bytes.is_empty() {
            let passed = self.preface.min(bytes.len());
            self.preface -= passed;
            bytes = &bytes[passed..];
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            if passed > 0 {
                tell(self, Some(&bytes[..passed]));
            }
            bytes = &bytes[passed..];
            if self.left > 0 || bytes.is_empty() {
                break;
            }
            let known = self.have;
            let more = (HEADER - known).min(bytes.len());
            self.header[known..known + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have == HEADER {
                self.have = 0;
                let [high, middle, low, ..] = self.header;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                tell(self, None);
            }
        }
    }
}

/// A client's socket whose frames are metered.
#[derive(Debug)]
pub struct Metered<T: Transport> {
    socket: Watched<T>,
    connection: Rc<Connection>,
    meter: Rc<Meter>,
}

impl<T: Transport> Metered<T> {
    /// From the preface on.
    #[must_use]
    pub fn new(socket: Watched<T>, connection: &Rc<Connection>, meter: &Rc<Meter>) -> Self {
        Self { socket, connection: Rc::clone(connection), meter: Rc::clone(meter) }
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>, pieces: &[IoSlice<'_>]) {
        let Poll::Ready(Ok(mut left)) = *polled else { return };
        for piece in pieces {
            let written = left.min(piece.len());
            self.meter.wrote(&piece[..written]);
            left -= written;
        }
    }
}

impl<T: Transport> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.meter.read(&buf.filled()[before..], self.connection.clock.now());
        }
        polled
    }
}

impl<T: Transport> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(&polled, &[IoSlice::new(buf)]);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.wrote(&polled, pieces);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    /// Feeds it in pieces of every size; what is seen at the end does not depend on them.
    fn check(bytes: &[u8], head_is_open: bool, idle: u64) {
        for size in 1..=bytes.len() {
            let meter = Meter::new(10, Millis(0));
            bytes.chunks(size).for_each(|piece| meter.read(piece, Millis(5)));
            assert_eq!((meter.head_since() != NEVER, meter.idle.get()), (head_is_open, idle), "pieces of {size}");
        }
    }

    #[test]
    fn half_a_head_is_seen_wherever_it_is_cut() {
        let whole = [PREFACE.to_vec(), frame(4, 0, &[]), frame(HEADERS, END_HEADERS, b"head")].concat();
        check(&whole, false, 1);
        check(&whole[..whole.len() - 1], true, 1);
        let unfinished = [PREFACE.to_vec(), frame(HEADERS, 0, b"head")].concat();
        check(&unfinished, true, 0);
        check(&[unfinished, frame(CONTINUATION, END_HEADERS, b"")].concat(), false, 0);
        check(&[PREFACE.to_vec(), frame(DATA, 0, b"some")[..11].to_vec()].concat(), false, 0);
        check(&[PREFACE.to_vec(), frame(HEADERS, END_HEADERS, b"head")[..4].to_vec()].concat(), true, 0);
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_and_data_makes_up_for_them() {
        let ping = frame(6, 0, &[0; 8]);
        let meter = Meter::new(10, Millis(0));
        meter.read(PREFACE, Millis(0));
        for _ in 0..10 {
            meter.read(&ping, Millis(1));
        }
        assert!(!meter.is_flooded());
        meter.read(&frame(DATA, 0, &[]), Millis(1));
        assert!(meter.is_flooded(), "an empty DATA frame carries nothing");
        meter.read(&frame(DATA, 0, &[0; 64]), Millis(1));
        assert!(!meter.is_flooded());
        meter.read(&ping, Millis(1));
        assert!(meter.is_flooded());
        meter.read(&ping, Millis(WINDOW_MS + 1));
        assert!(!meter.is_flooded(), "another window");
    }

    #[test]
    fn windows_are_opened_for_what_was_sent_and_else_have_a_limit() {
        let open = frame(WINDOW_UPDATE, 0, &1u32.to_be_bytes());
        let meter = Meter::new(10, Millis(0));
        meter.read(PREFACE, Millis(0));
        let opens = |count: usize, now: Millis| {
            (0..count).for_each(|_| meter.read(&open, now));
            meter.is_flooded()
        };
        assert!(!opens(10, Millis(1)));
        assert!(opens(1, Millis(1)), "nothing was sent");
        // Cut anywhere, and an empty frame fills nothing.
        let sent =
            [frame(DATA, 0, b"some"), frame(HEADERS, END_HEADERS, b"head"), frame(DATA, END_STREAM, b"")].concat();
        sent.chunks(5).for_each(|piece| meter.wrote(piece));
        assert!(!opens(9, Millis(1)), "ten for a frame of data");
        assert!(opens(1, Millis(1)));
        meter.wrote(&frame(DATA, 0, b"some").repeat(100));
        assert!(!opens(1_020, Millis(WINDOW_MS + 1)), "what was sent before still counts");
        assert!(opens(11, Millis(2 * WINDOW_MS + 2)), "but no longer than a window");
    }

    #[test]
    fn resets_and_empty_pieces_of_a_head_are_counted() {
        let meter = Meter::new(10, Millis(0));
        meter.read(PREFACE, Millis(0));
        let pair = [frame(HEADERS, END_HEADERS | END_STREAM, b"head"), frame(3, 0, &8u32.to_be_bytes())].concat();
        (0..1_000).for_each(|_| meter.read(&pair, Millis(1)));
        assert!(!meter.is_flooded(), "one for each request");
        (0..11).for_each(|_| meter.read(&frame(3, 0, &8u32.to_be_bytes()), Millis(1)));
        assert!(meter.is_flooded(), "not of what was reset before");
        let meter = Meter::new(10, Millis(0));
        meter.read(&[PREFACE.to_vec(), frame(HEADERS, 0, b"")].concat(), Millis(0));
        (0..12).for_each(|_| meter.read(&frame(CONTINUATION, 0, b""), Millis(1)));
        assert!(meter.is_flooded());
    }
}
