//! The account of memory: what clients' connections and requests hold in buffers, over all workers, against one limit.
//!
//! It counts what is known at once and costs a few additions a request; what it does not see is in docs/OPERATIONS.md
//! (*Memory*). A worker counts in cells of its own and tells the process in steps, so that no word is written by two
//! cores for each request.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

/// A client's connection at rest: its task, its timer, its places in maps. Measured by `benches/compare/idle.py` (4 KiB,
/// with TLS 17, over HTTP/2 21), as are the next two.
pub const CONNECTION: u64 = 8 * 1024;
/// What TLS adds to it.
pub const ENCRYPTED: u64 = 14 * 1024;
/// What HTTP/2 adds to it.
pub const STREAMS: u64 = 18 * 1024;
/// HTTP/1's own buffers, from a head's first byte until the request ends.
pub const READING: u64 = 12 * 1024;
/// A request under way besides its bytes: the reading and writing buffers on both sides, the connection to the
/// instance, the task's state. What a client that does not read costs (`make slow`: 106
/// KiB, with TLS 127, over HTTP/2 165), less what is counted apart.
pub const EXCHANGE: u64 = 40 * 1024;
/// A request's body that is passed on: what is read ahead of the instance.
pub const UPLOAD: u64 = 16 * 1024;
/// Both directions of a tunnel.
pub const TUNNEL: u64 = 32 * 1024;
/// An idle connection to an instance.
pub const LINK: u64 = 20 * 1024;

/// The most that a worker keeps to itself before it tells the process.
const STEP: i64 = 64 * 1024;

/// How much of the limit is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Below 80 %, or there is no limit.
    None,
    /// From 80 % on: who has not taken a byte for a second is reset, the slowest first.
    Reset,
    /// From 85 % on: so is who has not for 50 ms.
    ResetMore,
    /// From 90 % on: new requests get 503, too.
    Refuse,
    /// From 95 % on: nobody is accepted, too.
    Pause,
}

impl Pressure {
    /// The pressure of so much held of a limit; 0: no limit. HARDENING.md has the order, the steps are ours.
    #[must_use]
    pub fn of(held: u64, limit: u64) -> Self {
        if limit == 0 || held < limit / 5 * 4 {
            return Self::None;
        }
        match held.saturating_mul(100) / limit {
            0..80 => Self::None,
            80..85 => Self::Reset,
            85..90 => Self::ResetMore,
            90..95 => Self::Refuse,
            _ => Self::Pause,
        }
    }
}

/// The process's account.
#[derive(Debug, Default)]
pub struct Memory {
    limit: AtomicU64,
    held: AtomicI64,
    pressed: Notify,
}

impl Memory {
    /// Sets the limit in bytes, before workers start; 0: none.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// In bytes; 0: none.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// What all workers have told; bytes.
    #[must_use]
    pub fn held(&self) -> u64 {
        u64::try_from(self.held.load(Relaxed)).unwrap_or(0)
    }

    /// How much of the limit is held. Two relaxed loads.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        Pressure::of(self.held(), self.limit())
    }

    /// Whether less than half of the limit is held, or there is no limit: then speed may cost memory. Two relaxed loads.
    #[must_use]
    pub fn is_ample(&self) -> bool {
        let limit = self.limit();
        limit == 0 || self.held() < limit / 2
    }

    /// What has to go until there is no pressure; bytes.
    #[must_use]
    pub fn excess(&self) -> u64 {
        self.held().saturating_sub(self.limit() / 5 * 4)
    }

    /// Waits until there is pressure.
    pub async fn pressed(&self) {
        loop {
            let mut told = std::pin::pin!(self.pressed.notified());
            told.as_mut().enable();
            if self.pressure() > Pressure::None {
                return;
            }
            told.await;
        }
    }

    fn add(&self, bytes: i64) {
        let before = self.held.fetch_add(bytes, Relaxed);
        let was = Pressure::of(u64::try_from(before).unwrap_or(0), self.limit());
        if was == Pressure::None && bytes > 0 && self.pressure() > Pressure::None {
            self.pressed.notify_waiters();
        }
    }
}

/// One worker's part of the account. Used by one thread.
#[derive(Debug)]
pub struct Account {
    memory: Arc<Memory>,
    held: Cell<u64>,
    /// Held and not told yet.
    untold: Cell<i64>,
    step: i64,
    links: Cell<u64>,
}

impl Account {
    /// A worker's part; holds nothing.
    #[must_use]
    pub fn new(memory: &Arc<Memory>) -> Self {
        let step = match memory.limit() {
            0 => STEP,
            limit => i64::try_from(limit / 1_024).unwrap_or(STEP).min(STEP),
        };
        let (held, untold, links) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { memory: Arc::clone(memory), held, untold, step, links }
    }

    /// The process's.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What this worker holds; bytes.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// So many bytes more.
    pub fn hold(&self, bytes: u64) {
        self.held.set(self.held.get() + bytes);
        self.owe(bytes as i64);
    }

    /// So many bytes less, of those that were held.
    pub fn let_go(&self, bytes: u64) {
        debug_assert!(self.held.get() >= bytes, "no more is let go than was held");
        self.held.set(self.held.get().saturating_sub(bytes));
        self.owe(-(bytes as i64));
    }

    /// So many connections to instances are idle.
    pub fn idle_links(&self, count: u64) {
        let (bytes, before) = (count * LINK, self.links.get());
        self.links.set(bytes);
        self.hold(bytes.saturating_sub(before));
        self.let_go(before.saturating_sub(bytes));
        self.tell();
    }

    /// Tells the process what it does not know yet.
    pub fn tell(&self) {
        let untold = self.untold.take();
        if untold != 0 {
            self.memory.add(untold);
        }
    }

    fn owe(&self, bytes: i64) {
        let untold = self.untold.get() + bytes;
        self.untold.set(untold);
        if untold.abs() >= self.step {
            self.tell();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.tell();
    }
}

/// What one client's connection holds, its streams' answers included; let go when it is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Rc<Account>,
    fixed: Cell<u64>,
    /// Bytes of a head that is not whole yet, and HTTP/1's buffers for it.
    head: Cell<u64>,
    /// Bytes of answers that the socket has not taken.
    queued: Cell<u64>,
}

impl Charge {
    /// A charge of so many bytes.
    #[must_use]
    pub fn new(account: &Rc<Account>, bytes: u64) -> Self {
        account.hold(bytes);
        let (head, queued) = (Cell::new(0), Cell::new(0));
        Self { account: Rc::clone(account), fixed: Cell::new(bytes), head, queued }
    }

    /// The process's account.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        self.account.memory()
    }

    /// All that is held; bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.fixed.get() + self.head.get() + self.queued.get()
    }

    /// So much more as long as it lives.
    pub fn hold(&self, bytes: u64) {
        self.fixed.set(self.fixed.get() + bytes);
        self.account.hold(bytes);
    }

    /// So much less, of what was held so.
    pub fn let_go(&self, bytes: u64) {
        let bytes = bytes.min(self.fixed.get());
        self.fixed.set(self.fixed.get() - bytes);
        self.account.let_go(bytes);
    }

    /// Bytes of the head that is being read.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head.get()
    }

    /// Bytes of a head came.
    pub fn read_head(&self, bytes: u64) {
        let bytes = if self.head.get() == 0 { READING + bytes } else { bytes };
        self.head.set(self.head.get() + bytes);
        self.account.hold(bytes);
    }

    /// The head is whole, and counted by its request, or will never be.
    pub fn head_ended(&self) {
        let bytes = self.head.take();
        if bytes > 0 {
            self.account.let_go(bytes);
        }
    }

    /// Bytes of an answer were given to the protocol.
    pub fn queue(&self, bytes: u64) {
        self.queued.set(self.queued.get() + bytes);
        self.account.hold(bytes);
    }

    /// The socket took bytes: heads and framing count as if they were of answers, so that nothing stays that is gone.
    pub fn wrote(&self, bytes: u64) {
        self.keep_queued(self.queued.get().saturating_sub(bytes));
    }

    /// No more than this can be waiting for the socket.
    pub fn keep_queued(&self, most: u64) {
        let queued = self.queued.get();
        if queued > most {
            self.queued.set(most);
            self.account.let_go(queued - most);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.let_go(self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: u64) -> Arc<Memory> {
        let memory = Arc::new(Memory::default());
        memory.set_limit(limit);
        memory
    }

    #[test]
    fn pressure_rises_in_the_order_of_hardening() {
        let of = |held| Pressure::of(held, 1_000);
        assert_eq!(
            [of(0), of(799), of(800), of(850), of(900), of(950), of(9_999)],
            [
                Pressure::None,
                Pressure::None,
                Pressure::Reset,
                Pressure::ResetMore,
                Pressure::Refuse,
                Pressure::Pause,
                Pressure::Pause
            ]
        );
        assert_eq!(Pressure::of(u64::MAX, 0), Pressure::None, "no limit, no pressure");
    }

    #[test]
    fn workers_tell_in_steps_and_what_is_dropped_is_let_go() {
        let memory = memory(1 << 30);
        let account = Rc::new(Account::new(&memory));
        let charge = Charge::new(&account, 1_000);
        assert_eq!((account.held(), memory.held()), (1_000, 0), "less than a step is not told");
        charge.queue(100_000);
        assert_eq!(memory.held(), 101_000);
        charge.wrote(60_000);
        charge.wrote(60_000);
        assert_eq!((charge.bytes(), account.held()), (1_000, 1_000), "framing that is written is not counted below 0");
        charge.read_head(500);
        charge.head_ended();
        account.idle_links(2);
        account.idle_links(1);
        assert_eq!(account.held(), 1_000 + LINK);
        drop(charge);
        account.idle_links(0);
        assert_eq!((account.held(), memory.held()), (0, 0));
    }

    #[test]
    fn memory_is_ample_below_half_of_the_limit() {
        let memory = memory(1_000);
        assert!(memory.is_ample());
        memory.add(500);
        assert!(!memory.is_ample());
        memory.set_limit(0);
        assert!(memory.is_ample(), "no limit");
    }

    #[tokio::test]
    async fn pressure_is_told_to_who_waits_for_it() {
        let memory = memory(100_000);
        let waiting = tokio::spawn({
            let memory = Arc::clone(&memory);
            async move { memory.pressed().await }
        });
        tokio::task::yield_now().await;
        let account = Rc::new(Account::new(&memory));
        let charge = Charge::new(&account, 79_000);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        charge.queue(2_000);
        waiting.await.unwrap();
        assert_eq!(memory.excess(), 1_000);
    }
}
