//! Simulated instances: what each does at each moment, and what a try at one of them costs and gives.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use pointsman::engine::time::Draw;

use super::time::{MS, Micros, SECOND, Time};

/// Requests that an instance works on at once; more wait in its queue.
const AT_ONCE: usize = 8;
/// The median time of work.
const WORK: Micros = 10 * MS;
/// There and back on the network.
const NETWORK: Micros = 500;

/// What an instance is like at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Answers 200 after its work.
    Well,
    /// Works this many times longer.
    Slow(u64),
    /// Refuses connections.
    Dead,
    /// Nothing comes back, not even a refusal: its network is gone.
    Lost,
    /// Answers this status at once.
    Fails(u16),
}

/// What a try gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// A status.
    Status(u16),
    /// The connection was refused.
    Refused,
    /// No connection in the time given.
    NoConnection,
    /// No answer in the time given.
    TooLate,
}

impl Answer {
    /// Whether the client is served.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Status(200..=499))
    }
}

/// What a sender waits for at most.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Micros,
    /// For the answer.
    pub answer: Micros,
}

impl Default for Patience {
    /// What pointsman waits for by default; all senders get it, for it is not what is compared.
    fn default() -> Self {
        Self { connect: SECOND, answer: 15 * SECOND }
    }
}

/// All instances of a run.
pub struct Fleet {
    time: Rc<Time>,
    modes: Box<dyn Fn(usize, Micros) -> Mode>,
    /// When each place of each instance is free again.
    places: RefCell<Vec<BinaryHeap<Reverse<Micros>>>>,
    luck: RefCell<Draw>,
    /// Tries: when, at whom.
    pub tries: RefCell<Vec<(Micros, usize)>>,
}

impl Fleet {
    /// A fleet of `size` instances.
    pub fn new(time: &Rc<Time>, size: usize, modes: impl Fn(usize, Micros) -> Mode + 'static, seed: u64) -> Rc<Self> {
        let places = (0..size).map(|_| (0..AT_ONCE).map(|_| Reverse(0)).collect()).collect();
        Rc::new(Self {
            time: Rc::clone(time),
            modes: Box::new(modes),
            places: RefCell::new(places),
            luck: RefCell::new(Draw(seed)),
            tries: RefCell::default(),
        })
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.places.borrow().len()
    }

    /// One try at one instance.
    pub async fn attempt(&self, instance: usize, patience: Patience) -> Answer {
        let started = self.time.now();
        self.tries.borrow_mut().push((started, instance));
        let work = match (self.modes)(instance, started) {
            Mode::Dead => {
                self.time.sleep(NETWORK).await;
                return Answer::Refused;
            }
            Mode::Lost => {
                self.time.sleep(patience.connect).await;
                return Answer::NoConnection;
            }
            Mode::Fails(status) => {
                self.time.sleep(NETWORK).await;
                return Answer::Status(status);
            }
            Mode::Slow(times) => self.work() * times,
            Mode::Well => self.work(),
        };
        let ends = self.queue(instance, started, work) + NETWORK;
        if ends > started + patience.answer {
            self.time.sleep(patience.answer).await;
            return Answer::TooLate;
        }
        self.time.sleep(ends - started).await;
        Answer::Status(200)
    }

    /// Takes the place that is free first; when the work is done.
    fn queue(&self, instance: usize, now: Micros, work: Micros) -> Micros {
        let places = &mut self.places.borrow_mut()[instance];
        let Reverse(free) = places.pop().unwrap_or(Reverse(0));
        let ends = free.max(now) + work;
        places.push(Reverse(ends));
        ends
    }

    /// One request's work: the median times a factor between 1/2 and 2, evenly on a logarithmic scale.
    fn work(&self) -> Micros {
        let part = self.luck.borrow_mut().below(1_000_000) as f64 / 1e6;
        (WORK as f64 * 2f64.powf(2.0 * part - 1.0)) as Micros
    }
}
