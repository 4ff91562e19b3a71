//! The last requests of each worker, as the guard of rule changes wants them: a worker offers a few a second over a
//! bounded queue, the control plane keeps them in bounded rings and looks at them when rules change.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::engine::format::traffic::TrafficRequest;

/// Requests that are kept of one worker.
pub const KEPT: usize = 1_024;

/// Requests that may wait of one worker: what it offers in two seconds and a half.
const WAITING: usize = 256;

/// A request and the worker that served it.
#[derive(Debug)]
pub struct Sample {
    /// Index of the worker.
    pub worker: usize,
    /// Without secrets.
    pub request: Box<TrafficRequest>,
}

/// The sending side, for workers.
#[derive(Clone, Debug)]
pub struct Offers(SyncSender<Sample>);

impl Offers {
    /// Hands a request over; forgets it when too many wait. Never waits.
    pub fn offer(&self, sample: Sample) {
        // A full queue or a proxy that is stopping: one shape less.
        let _ = self.0.try_send(sample);
    }
}

/// The rings. The lock is the control plane's; no worker takes it.
#[derive(Debug)]
pub struct Recent {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    offered: Receiver<Sample>,
    rings: Vec<VecDeque<TrafficRequest>>,
}

/// Rings for that many workers, and what fills them.
#[must_use]
pub fn channel(workers: usize) -> (Offers, Recent) {
    let (sender, offered) = sync_channel(WAITING * workers.max(1));
    let rings = (0..workers.max(1)).map(|_| VecDeque::new()).collect();
    (Offers(sender), Recent { inner: Mutex::new(Inner { offered, rings }) })
}

impl Recent {
    /// Takes what was offered into the rings; to be called about once a second.
    pub fn gather(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).gather();
    }

    /// What the rings hold now, the oldest of each worker first.
    #[must_use]
    pub fn requests(&self) -> Vec<TrafficRequest> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.gather();
        inner.rings.iter().flatten().cloned().collect()
    }
}

impl Inner {
    fn gather(&mut self) {
        while let Ok(Sample { worker, request }) = self.offered.try_recv() {
            let at = worker.min(self.rings.len() - 1);
            let ring = &mut self.rings[at];
            if ring.len() >= KEPT {
                ring.pop_front();
            }
            ring.push_back(*request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::format::traffic::TrafficLine;

    fn sample(worker: usize, n: usize) -> Sample {
        let line = TrafficLine { host: "a".to_owned(), path: format!("/{n}"), ..TrafficLine::default() };
        Sample { worker, request: Box::new(line.request().unwrap()) }
    }

    #[test]
    fn the_last_requests_of_each_worker_are_kept_and_no_more() {
        let (offers, recent) = channel(2);
        offers.offer(sample(1, 7));
        for n in 0..2_000 {
            offers.offer(sample(0, n));
            recent.gather();
        }
        let kept = recent.requests();
        assert_eq!(kept.len(), KEPT + 1, "a busy worker does not push out a quiet one's");
        assert_eq!((kept[0].path.as_str(), kept[KEPT].path.as_str()), ("/976", "/7"));
    }

    #[test]
    fn offers_that_nobody_takes_are_forgotten() {
        let (offers, recent) = channel(1);
        (0..10_000).for_each(|n| offers.offer(sample(0, n)));
        assert_eq!(recent.requests().len(), WAITING);
    }
}
