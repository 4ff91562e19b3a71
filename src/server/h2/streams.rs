//! What a connection knows of its streams: which are open, when one of them has to be looked at, how often the client
//! takes them back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::engine::time::Millis;
use crate::forward::Connection;
use crate::forward::connection::NEVER;

/// The window in which a client's resets are counted.
const WINDOW_MS: u64 = 10_000;

/// The streams of one connection.
#[derive(Debug)]
pub struct Streams {
    connection: Rc<Connection>,
    /// Open ones by their place; `None`: a free place.
    open: RefCell<Vec<Option<Rc<Connection>>>>,
    count: Cell<usize>,
    /// Since when there is none; `NEVER` while there is one.
    idle_since: Cell<Millis>,
    /// The earliest moment that any of them waits for.
    due: Cell<Millis>,
    /// What the client's table of fields holds; bytes.
    remembered: Cell<u64>,
    resets: Resets,
}

/// The client's resets of requests that had no answer yet.
#[derive(Debug)]
struct Resets {
    allowed: u32,
    since: Cell<Millis>,
    count: Cell<u32>,
    opened: Cell<u32>,
}

impl Streams {
    /// None yet. `resets`: how many requests a client may take back in 10 s.
    #[must_use]
    pub fn new(connection: &Rc<Connection>, resets: u32) -> Self {
        let now = connection.clock.now();
        let resets = Resets { allowed: resets, since: Cell::new(now), count: Cell::new(0), opened: Cell::new(0) };
        Self {
            connection: Rc::clone(connection),
            open: RefCell::default(),
            count: Cell::new(0),
            idle_since: Cell::new(now),
            due: Cell::new(NEVER),
            remembered: Cell::new(0),
            resets,
        }
    }

    /// Counts a stream until what is returned is dropped.
    pub fn open(self: &Rc<Self>, stream: &Rc<Connection>) -> Open {
        let mut open = self.open.borrow_mut();
        let place = open.iter().position(Option::is_none).unwrap_or(open.len());
        match open.get_mut(place) {
            Some(free) => *free = Some(Rc::clone(stream)),
            None => open.push(Some(Rc::clone(stream))),
        }
        self.count.set(self.count.get() + 1);
        self.idle_since.set(NEVER);
        self.resets.turn(self.connection.clock.now());
        self.resets.opened.set(self.resets.opened.get() + 1);
        Open { streams: Rc::clone(self), place }
    }

    /// The connection these are streams of.
    #[must_use]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// The client's table of fields holds so many bytes.
    pub fn remember(&self, bytes: u64) {
        let before = self.remembered.replace(bytes);
        match bytes.checked_sub(before) {
            Some(0) => {}
            Some(more) => self.connection.room.hold(more),
            None => self.connection.room.let_go(before - bytes),
        }
    }

    /// See [`Self::remember`].
    #[must_use]
    pub fn remembered(&self) -> u64 {
        self.remembered.get()
    }

    /// Since when there is no stream; `NEVER` while there is one.
    #[must_use]
    pub fn idle_since(&self) -> Millis {
        self.idle_since.get()
    }

    /// The earliest moment that a stream waits for.
    #[must_use]
    pub fn next_due(&self) -> Millis {
        self.due.get()
    }

    /// A stream that has just been polled waits: the driver is to look at it when its time has come.
    pub fn wait(&self, stream: &Connection) {
        let now = self.connection.clock.now();
        // What is due already was looked at, and waits for something else.
        let due = [stream.instance_deadline.get(), stream.upload_deadline.get(), stream.write_ends()]
            .into_iter()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(NEVER);
        if due < self.due.get() {
            self.due.set(due);
            self.connection.wake();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Those that the client has not taken a byte of for a while, by `write_blocked`.
    pub fn stuck(&self) -> Vec<Rc<Connection>> {
        let open = self.open.borrow();
        open.iter().flatten().filter(|stream| stream.write_blocked.get() != NEVER).map(Rc::clone).collect()
    }

    /// Wakes the streams whose time has come. They say again what they wait for.
    pub fn wake_due(&self, now: Millis) {
        if now < self.due.get() {
            return;
        }
        // Each says its deadlines itself when it is polled, which is rare enough to wake all of them.
        self.due.set(NEVER);
        self.open.borrow().iter().flatten().for_each(|stream| stream.wake());
    }

    /// The proxy's last word before it ends: a WebSocket says goodbye.
    pub fn go_away(&self) {
        for stream in self.open.borrow().iter().flatten().filter(|stream| !stream.going_away.replace(true)) {
            stream.wake();
        }
    }

    /// The client took back a request that had no answer yet.
    pub fn was_reset(&self) {
        self.resets.turn(self.connection.clock.now());
        self.resets.count.set(self.resets.count.get() + 1);
        if self.are_reset_too_often() {
            self.connection.wake();
        }
    }

    /// Whether the client takes back more than it may, and most of what it asks (CVE-2023-44487).
    #[must_use]
    pub fn are_reset_too_often(&self) -> bool {
        let (count, opened) = (self.resets.count.get(), self.resets.opened.get());
        count >= self.resets.allowed && count.saturating_mul(2) > opened
    }
}

impl Resets {
    fn turn(&self, now: Millis) {
        if now.since(self.since.get()) >= WINDOW_MS {
            self.since.set(now);
            self.count.set(0);
            self.opened.set(0);
        }
    }
}

/// A stream that is counted.
#[derive(Debug)]
pub struct Open {
    /// The connection's streams.
    pub streams: Rc<Streams>,
    place: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.streams;
        let mut open = streams.open.borrow_mut();
        open[self.place] = None;
        // Places at the end are given back, so that a connection that was busy once holds little.
        while open.last().is_some_and(Option::is_none) {
            open.pop();
        }
        drop(open);
        streams.count.set(streams.count.get() - 1);
        if streams.count.get() == 0 {
            streams.open.borrow_mut().shrink_to(4);
            streams.idle_since.set(streams.connection.clock.now());
            streams.connection.wake();
        }
    }
}
