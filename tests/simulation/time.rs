//! Virtual time: tasks that only ever wait for a moment, woken in the order of their moments and, among equals, in the
//! order in which they began to wait. The same seed gives the same run, to the microsecond, on every machine.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pointsman::engine::time::Millis;

/// A moment, in microseconds since the start.
pub type Micros = u64;
/// Microseconds of a millisecond.
pub const MS: Micros = 1_000;
/// Microseconds of a second.
pub const SECOND: Micros = 1_000 * MS;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The clock, and who waits for what.
#[derive(Default)]
pub struct Time {
    now: Cell<Micros>,
    waits: RefCell<BinaryHeap<Reverse<(Micros, u64, usize)>>>,
    tasks: RefCell<Vec<Option<Task>>>,
    free: RefCell<Vec<usize>>,
    order: Cell<u64>,
    running: Cell<usize>,
}

impl Time {
    /// Now.
    pub fn now(&self) -> Micros {
        self.now.get()
    }

    /// Now, as the engine counts.
    pub fn millis(&self) -> Millis {
        Millis(self.now.get() / MS)
    }

    /// Starts a task at a moment.
    pub fn spawn_at(&self, at: Micros, task: impl Future<Output = ()> + 'static) {
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.tasks.borrow_mut().push(None);
            self.tasks.borrow().len() - 1
        });
        self.tasks.borrow_mut()[place] = Some(Box::pin(task));
        self.wake_at(at, place);
    }

    /// Waits.
    pub fn sleep(self: &Rc<Self>, micros: Micros) -> Sleep {
        Sleep { time: Rc::clone(self), until: self.now() + micros, waits: false }
    }

    /// Runs until nobody waits for anything before `end`.
    pub fn run_until(&self, end: Micros) {
        loop {
            let next = self.waits.borrow_mut().pop();
            let Some(Reverse((at, _, place))) = next.filter(|Reverse((at, ..))| *at <= end) else { return };
            self.now.set(at);
            self.running.set(place);
            let Some(mut task) = self.tasks.borrow_mut()[place].take() else { continue };
            if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                self.tasks.borrow_mut()[place] = Some(task);
            } else {
                self.free.borrow_mut().push(place);
            }
        }
    }

    fn wake_at(&self, at: Micros, place: usize) {
        self.order.set(self.order.get() + 1);
        self.waits.borrow_mut().push(Reverse((at, self.order.get(), place)));
    }
}

/// A wait.
pub struct Sleep {
    time: Rc<Time>,
    until: Micros,
    waits: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.time.now() >= self.until {
            return Poll::Ready(());
        }
        if !self.waits {
            self.waits = true;
            self.time.wake_at(self.until, self.time.running.get());
        }
        Poll::Pending
    }
}
