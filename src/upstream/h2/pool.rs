//! A worker's connections over HTTP/2 to one endpoint. Requests that come while one is being opened wait for it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::super::seat::Open;
use super::super::wire::Wire;
use super::shared::{Bounds, Figures, Shared, Slot};
use crate::engine::time::Millis;

/// Between two looks for a place while no other connection may be opened.
const LOOK: Duration = Duration::from_millis(5);

/// Connections to one endpoint.
#[derive(Debug)]
pub struct Pool {
    figures: Rc<Figures>,
    bounds: Bounds,
    open: RefCell<Vec<Rc<Shared>>>,
    dialing: RefCell<Option<Rc<Dial>>>,
}

/// A connection that is being opened.
#[derive(Debug, Default)]
struct Dial {
    /// Why there is none; set before `done` is told.
    failed: RefCell<Option<Failed>>,
    over: Cell<bool>,
    done: Notify,
}

/// An error that several requests are told.
#[derive(Clone, Debug)]
struct Failed {
    kind: io::ErrorKind,
    code: Option<i32>,
    text: String,
}

impl Pool {
    /// None yet. `figures`: the worker's.
    pub fn new(figures: &Rc<Figures>, bounds: Bounds) -> Self {
        Self { figures: Rc::clone(figures), bounds, open: RefCell::default(), dialing: RefCell::default() }
    }

    /// A place on an open connection: of those with room, the oldest, so that the others can rest.
    pub fn take(&self) -> Option<Slot> {
        let mut open = self.open.borrow_mut();
        let mut closed = false;
        let slot = open.iter().find_map(|shared| {
            let slot = shared.slot();
            closed |= slot.is_none() && shared.is_closed();
            slot
        });
        if closed {
            open.retain(|shared| !shared.is_closed());
        }
        slot
    }

    /// A place on a connection with room; opened if there is none. `dial` makes a socket; it may take `limit`. `open`: whether
    /// another connection may be open; while it may not, a place on those that are is waited for.
    pub async fn connect<D>(
        self: &Rc<Self>,
        dial: impl Fn() -> D,
        open: impl Fn() -> Option<Open>,
        limit: Duration,
        now: Millis,
    ) -> io::Result<Slot>
    where
        D: Future<Output = io::Result<Wire>> + 'static,
    {
        loop {
            if let Some(slot) = self.take() {
                return Ok(slot);
            }
            let dialing = self.dialing.borrow().clone();
            let dialing = dialing.or_else(|| open().map(|open| self.start(dial(), open, limit, now)));
            let Some(dialing) = dialing else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let mut done = pin!(dialing.done.notified());
            done.as_mut().enable();
            if !dialing.over.get() {
                done.await;
            }
            if let Some(failed) = &*dialing.failed.borrow() {
                return Err(failed.error());
            }
        }
    }

    /// Opens a connection in a task of its own: a request that goes away does not take it from those that wait too.
    fn start<D>(self: &Rc<Self>, socket: D, open: Open, limit: Duration, now: Millis) -> Rc<Dial>
    where
        D: Future<Output = io::Result<Wire>> + 'static,
    {
        let dial = Rc::new(Dial::default());
        self.dialing.replace(Some(Rc::clone(&dial)));
        let dialing = Dialing { pool: Rc::clone(self), dial: Rc::clone(&dial) };
        spawn_local(async move {
            let Dialing { pool, dial } = &dialing;
            let opened = async { Shared::start(socket.await?, open, &pool.figures, pool.bounds, now).await };
            let opened = tokio::time::timeout(limit, opened).await;
            match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(shared) if shared.takes_streams() => pool.open.borrow_mut().push(shared),
                // Not asked again by the same request: it would open one connection after the other.
                Ok(_) => {
                    let none = io::Error::new(io::ErrorKind::ConnectionRefused, "the instance takes no streams");
                    dial.failed.replace(Some(Failed::of(&none)));
                }
                Err(error) => {
                    dial.failed.replace(Some(Failed::of(&error)));
                }
            }
            dial.over.set(true);
        });
        dial
    }

    /// Lets go of what is closed, dead or idle for long. Once a second.
    pub fn sweep(&self, now: Millis, idle: u64) {
        self.open.borrow_mut().retain(|shared| shared.sweep(now, idle));
    }

    /// Lets go of what has no stream. Returns whether there was any.
    pub fn yield_idle(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let before = open.len();
        open.retain(|shared| !shared.is_idle());
        open.len() < before
    }

    /// Takes no new streams on what is open: the instance is no longer in the catalog.
    pub fn dismiss(&self) {
        self.open.borrow_mut().drain(..).for_each(|shared| shared.retire());
    }
}

/// The task that opens a connection. However it ends, those who wait are told, and the next one may try.
struct Dialing {
    pool: Rc<Pool>,
    dial: Rc<Dial>,
}

impl Drop for Dialing {
    fn drop(&mut self) {
        if !self.dial.over.replace(true) {
            self.dial.failed.replace(Some(Failed::of(&io::Error::other("opening a connection was broken off"))));
        }
        self.pool.dialing.replace(None);
        self.dial.done.notify_waiters();
    }
}

impl Failed {
    fn of(error: &io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error(), text: error.to_string() }
    }

    fn error(&self) -> io::Error {
        self.code.map_or_else(|| io::Error::new(self.kind, self.text.clone()), io::Error::from_raw_os_error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::LocalSet;

    use super::*;
    use crate::engine::snapshot::Live;

    #[tokio::test]
    async fn a_dial_that_panics_is_a_failure_and_the_next_request_dials_anew() {
        let pool = Rc::new(Pool::new(&Rc::default(), Bounds { streams: 100, head: 64 * 1024 }));
        let (count, live, dialled) = (Rc::default(), Arc::new(Live::new(1)), Cell::new(0));
        let open = || Open::at_once(&count, &live, None, false);
        let all = async {
            for turn in 1..=2 {
                let dial = || {
                    dialled.set(dialled.get() + 1);
                    async { panic!("a fault of ours") }
                };
                let connecting = pool.connect(dial, open, Duration::from_secs(60), Millis(0));
                let failed =
                    tokio::time::timeout(Duration::from_secs(5), connecting).await.expect("an end").unwrap_err();
                assert_eq!(failed.kind(), io::ErrorKind::Other);
                assert_eq!((dialled.get(), count.get()), (turn, 0));
            }
        };
        LocalSet::new().run_until(all).await;
    }
}
