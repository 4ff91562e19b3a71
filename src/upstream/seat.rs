//! One open connection to an endpoint, counted by its worker and, where there is a limit, over all workers.
//!
//! Who finds none free waits here and not in the line of `forward::queue`, which is for places of requests. A request
//! stands in that line before it is known whether it needs a connection at all (there may be an idle one, or one of
//! HTTP/2), and has its place, counted as load, by the time it does; a connection comes free by other events (one that
//! idles in another worker is asked for, and closed), for other waiters, and not for a request over HTTP/2. In one line,
//! the first who needs a connection would keep those behind him from places that are free. He waits for half of the
//! connect limit, so that the other half is left for opening one, and what ends his wait is then what ends any failed
//! attempt to connect: another instance, where the rule retries `connect`.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::snapshot::Live;
use crate::observe::seats::Seats;

/// The limit on connections to one endpoint.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The most over all workers; at least 1.
    pub most: u32,
    /// Where workers tell each other.
    pub seats: Arc<Seats>,
}

/// Counts one open connection of an endpoint while it lives.
#[derive(Debug)]
pub struct Open {
    count: Rc<Cell<u32>>,
    seat: Option<(Arc<Live>, Arc<Seats>)>,
}

impl Open {
    /// One that is open, if it may be: the endpoint has fewer than the bound says, or `regardless`.
    #[must_use]
    pub fn at_once(count: &Rc<Cell<u32>>, live: &Arc<Live>, bound: Option<&Bound>, regardless: bool) -> Option<Self> {
        let seat = match bound {
            None => None,
            Some(Bound { most, .. }) if !live.take_seat(if regardless { u32::MAX } else { *most }) => return None,
            Some(Bound { seats, .. }) => Some((Arc::clone(live), Arc::clone(seats))),
        };
        count.set(count.get() + 1);
        Some(Self { count: Rc::clone(count), seat })
    }

    /// One that is open as soon as it may be. `yields`: closes an idle connection of this worker to the endpoint, if it
    /// has one; those of other workers are asked for.
    ///
    /// # Errors
    /// `ResourceBusy`: all stay in use for this long.
    pub async fn soon(
        count: &Rc<Cell<u32>>,
        live: &Arc<Live>,
        bound: Option<&Bound>,
        within: Duration,
        yields: impl Fn() -> bool,
    ) -> io::Result<Self> {
        let at_once = || Self::at_once(count, live, bound, false);
        if let Some(open) = at_once() {
            return Ok(open);
        }
        let Some(Bound { seats, .. }) = bound else { return Err(io::ErrorKind::ResourceBusy.into()) };
        let waits = Waits::new(live);
        let waiting = async {
            loop {
                let mut freed = pin!(seats.freed());
                freed.as_mut().enable();
                if let Some(open) = at_once() {
                    return open;
                }
                if !yields() {
                    seats.ask();
                    freed.await;
                }
            }
        };
        let waited = tokio::time::timeout(within, waiting).await;
        drop(waits);
        seats.waited(waited.is_ok());
        waited.map_err(|_| io::ErrorKind::ResourceBusy.into())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
        if let Some((live, seats)) = &self.seat
            && live.leave_seat()
        {
            seats.free();
        }
    }
}

/// One who waits for a connection: idle ones are closed for him.
struct Waits<'l>(&'l Live);

impl<'l> Waits<'l> {
    fn new(live: &'l Live) -> Self {
        live.want_seat();
        Self(live)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.do_without_seat();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_what_another_one_closes() {
        let (count, live) = (Rc::default(), Arc::new(Live::new(1)));
        let bound = Bound { most: 1, seats: Arc::default() };
        let first = Open::at_once(&count, &live, Some(&bound), false).unwrap();
        assert!(Open::at_once(&count, &live, Some(&bound), false).is_none());
        let brief = Duration::from_millis(20);
        let refused = Open::soon(&count, &live, Some(&bound), brief, || false).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(!live.seat_is_wanted());
        let idle = Cell::new(Some(first));
        let yields = || idle.take().is_some();
        let second = Open::soon(&count, &live, Some(&bound), Duration::from_secs(5), yields).await.unwrap();
        assert_eq!((count.get(), live.seats()), (1, 1));
        let asked = async {
            bound.seats.asked().await;
            drop(second);
        };
        let third = Open::soon(&count, &live, Some(&bound), Duration::from_secs(5), || false);
        // Who holds it listens before it is asked for.
        let ((), third) = tokio::join!(biased; asked, third);
        assert!(third.is_ok());
        assert_eq!(bound.seats.waits(), (2, 1));
        drop(third);
        assert_eq!((count.get(), live.seats()), (0, 0));
    }
}
