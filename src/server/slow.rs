//! Making room: while memory is short, the clients that have not taken a byte for longest are reset, a worker's own, and
//! those whose fields hold much are asked to leave.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::h2::streams::Streams;
use super::worker::Worker;
use crate::engine::time::Millis;
use crate::forward::Connection;
use crate::forward::connection::{NEVER, Phase};
use crate::observe::memory::Pressure;

/// Between two looks while memory is short, and while it is very short.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Who took something within this is not slow: milliseconds, while memory is short and while it is very short.
const SLOW_MS: u64 = 1_000;
const SLOW_WHEN_SHORT_MS: u64 = 50;
/// Whose fields hold less is not asked to leave: bytes.
const LITTLE: u64 = 32 * 1024;
/// Between two lines in the log.
const TELL_MS: u64 = 10_000;

/// A worker's connections over HTTP/2, whose streams can be slow one by one.
#[derive(Debug, Default)]
pub struct Slow {
    streams: RefCell<Vec<Weak<Streams>>>,
    told: Cell<Option<Millis>>,
}

impl Slow {
    /// Looks at these streams, too, as long as they are held.
    pub fn know(&self, streams: &Rc<Streams>) {
        let mut known = self.streams.borrow_mut();
        // Those that are gone are forgotten when the list would grow.
        if known.len() == known.capacity() {
            known.retain(|known| known.strong_count() > 0);
        }
        known.push(Rc::downgrade(streams));
    }

    fn stuck(&self) -> Vec<Rc<Connection>> {
        self.streams.borrow().iter().filter_map(Weak::upgrade).flat_map(|streams| streams.stuck()).collect()
    }

    /// Those whose fields hold most come first.
    fn remembering(&self) -> Vec<Rc<Streams>> {
        let known = self.streams.borrow();
        let mut most: Vec<_> =
            known.iter().filter_map(Weak::upgrade).filter(|streams| streams.remembered() > LITTLE).collect();
        most.sort_by_key(|streams| Reverse(streams.remembered()));
        most
    }
}

/// Makes room whenever memory is short. Ends with its worker.
pub async fn make_room(worker: Rc<Worker>) {
    loop {
        worker.forward.account.memory().pressed().await;
        loop {
            let pressure = worker.forward.account.memory().pressure();
            if pressure == Pressure::None {
                break;
            }
            reset_slowest(&worker, pressure);
            tokio::time::sleep(if pressure > Pressure::Reset { LOOK_AGAIN } else { LOOK }).await;
        }
    }
}

/// Resets the slowest until this worker's part of the excess is gone.
fn reset_slowest(worker: &Worker, pressure: Pressure) {
    let account = &worker.forward.account;
    // Steps that were kept back would hide what was let go already.
    account.tell();
    let (excess, held) = (account.memory().excess(), account.memory().held().max(1));
    let own = (u128::from(excess) * u128::from(account.held()) / u128::from(held)) as u64;
    let now = worker.forward.clock.read_millis();
    let slow = if pressure > Pressure::Reset { SLOW_WHEN_SHORT_MS } else { SLOW_MS };
    let mut slowest = worker.connections(|open| open.phase.get() != Phase::Tunnel);
    slowest.extend(worker.slow.stuck());
    slowest.retain(|stuck| stuck.write_blocked.get() != NEVER && now.since(stuck.write_blocked.get()) >= slow);
    slowest.sort_by_key(|stuck| stuck.write_blocked.get());
    let (mut gone, mut count) = (0, 0);
    for stuck in slowest.iter().filter(|stuck| !stuck.cut.get()) {
        if gone >= own {
            break;
        }
        gone += match stuck.is_stream {
            true => worker.limits.h2.send_buffer as u64,
            false => stuck.room.bytes(),
        };
        count += 1;
        stuck.cut.set(true);
        stuck.wake();
    }
    let mut asked = 0;
    for streams in worker.slow.remembering() {
        if gone >= own {
            break;
        }
        gone += streams.remembered();
        let connection = streams.connection();
        // Who was asked before, and is still there, is not asked again.
        let is_asked = connection.closing.replace(true);
        if is_asked && pressure >= Pressure::Refuse && !connection.cut.replace(true) {
            count += 1;
        } else if is_asked {
            continue;
        } else {
            asked += 1;
        }
        connection.wake();
    }
    tell(worker, now, (count, asked));
}

fn tell(worker: &Worker, now: Millis, (reset, asked_to_leave): (usize, usize)) {
    let told = worker.slow.told.get();
    if told.is_none_or(|told| now.since(told) >= TELL_MS) {
        worker.slow.told.set(Some(now));
        let memory = worker.forward.account.memory();
        let (held, limit) = (memory.held(), memory.limit());
        tracing::warn!(
            held,
            limit,
            reset,
            asked_to_leave,
            "memory is short (limits.memory): the slowest readers are reset, and who makes us remember most has to leave"
        );
    }
}
