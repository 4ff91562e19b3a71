//! One run: requests come at an even rate with jitter; each is sent and judged.

use std::cell::RefCell;
use std::rc::Rc;

use pointsman::engine::time::Draw;

use super::fleet::{Answer, Fleet};
use super::policies::{Setting, make};
use super::scenario::{BEGINS, ENDS, Fault, LAST, rate};
use super::time::{MS, Micros, SECOND, Time};

/// What a failed request costs its client: he waits, and asks again.
pub const FAILURE_COSTS: Micros = 15 * SECOND;
/// Pieces in which reactions are looked for.
pub const PIECE: Micros = 100 * MS;

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Requests sent while the fault lasted, and after.
    pub requests: usize,
    /// Those that failed.
    pub failed: usize,
    /// Mean time above that of the calm before, a failure counted as [`FAILURE_COSTS`].
    pub extra: Micros,
    /// 99th percentile of those that were served.
    pub p99: Micros,
    /// From the fault's begin until the instances hit got under a tenth of their share, for good. `None`: never.
    pub reacted: Option<Micros>,
    /// Tries a hundred requests.
    pub tries: usize,
}

/// Runs one policy through one fault.
pub fn run(policy: &str, fault: Fault, size: usize) -> Figures {
    let time = Rc::new(Time::default());
    let seed = 0x5EED ^ (size as u64) << 32 ^ fault as u64;
    let fleet = Fleet::new(&time, size, move |at, now| fault.mode(at, size, now), seed);
    let setting = Setting { time: Rc::clone(&time), fleet: Rc::clone(&fleet), fault, seed };
    let sender = make(policy, &setting);
    let done: Rc<RefCell<Vec<(Micros, Micros, Answer)>>> = Rc::default();
    let gap = SECOND / rate(size);
    let mut luck = Draw(seed).fork(1);
    for request in 0..LAST / gap {
        let at = request * gap + luck.below(gap);
        let (sender, time, done) = (Rc::clone(&sender), Rc::clone(&time), Rc::clone(&done));
        let begin = Rc::clone(&time);
        begin.spawn_at(at, async move {
            let answer = sender.send(request).await;
            done.borrow_mut().push((at, time.now() - at, answer));
        });
    }
    time.run_until(LAST + 60 * SECOND);
    let done = done.borrow();
    figures(&done, &fleet, fault, size)
}

fn figures(done: &[(Micros, Micros, Answer)], fleet: &Fleet, fault: Fault, size: usize) -> Figures {
    let calm: Vec<Micros> = done.iter().filter(|(at, ..)| *at < BEGINS).map(|(_, took, _)| *took).collect();
    let calm = calm.iter().sum::<Micros>() / calm.len().max(1) as u64;
    // What comes just before the end is saved by whoever happens to wait a little.
    let counts = |at: Micros| (BEGINS..ENDS - PIECE).contains(&at) || at >= ENDS;
    let hit: Vec<_> = done.iter().filter(|(at, ..)| counts(*at)).collect();
    let failed = hit.iter().filter(|(_, _, answer)| !answer.is_good());
    let cost = |(_, took, answer): &&(Micros, Micros, Answer)| if answer.is_good() { *took } else { FAILURE_COSTS };
    let mean = hit.iter().map(cost).sum::<Micros>() / hit.len().max(1) as u64;
    let mut served: Vec<Micros> =
        hit.iter().filter(|(.., answer)| answer.is_good()).map(|(_, took, _)| *took).collect();
    served.sort_unstable();
    let tries = fleet.tries.borrow().iter().filter(|(at, _)| *at >= BEGINS).count();
    Figures {
        requests: hit.len(),
        failed: failed.count(),
        extra: mean.saturating_sub(calm),
        p99: served.get(served.len() * 99 / 100).copied().unwrap_or(0),
        reacted: reacted(fleet, fault, size),
        tries: tries * 100 / hit.len().max(1),
    }
}

/// When the instances that the fault hit last got more than a tenth of the tries that they would have got in health.
fn reacted(fleet: &Fleet, fault: Fault, size: usize) -> Option<Micros> {
    let hits = (0..size).filter(|at| fault.hits(*at, size)).count();
    if hits == size || fault == Fault::OneFlapping || size / hits > 50 {
        return None;
    }
    let fair = hits as f64 / size as f64;
    let pieces = ((ENDS - BEGINS) / PIECE) as usize;
    let mut counts = vec![(0u32, 0u32); pieces];
    for (at, instance) in fleet.tries.borrow().iter().filter(|(at, _)| (BEGINS..ENDS).contains(at)) {
        let count = &mut counts[((at - BEGINS) / PIECE) as usize];
        count.0 += 1;
        count.1 += u32::from(fault.hits(*instance, size));
    }
    // A single probe in a piece is no traffic.
    let over = |(all, at_bad): &(u32, u32)| *at_bad > 1 && f64::from(*at_bad) > f64::from(*all) * fair / 10.0;
    let last = counts.iter().rposition(over).map_or(0, |at| at + 1);
    (last < pieces).then_some(last as u64 * PIECE)
}
