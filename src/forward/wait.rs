//! Waiting with a deadline but without a timer: the connection's driver wakes the task when it has passed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::connection::{Connection, NEVER};
use crate::engine::time::Millis;

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Waits for `future` until `deadline`.
pub async fn until<F: Future>(connection: &Connection, deadline: Millis, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let waited = poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if connection.clock.now() >= deadline {
            return Poll::Ready(Err(Elapsed));
        }
        connection.instance_deadline.set(deadline);
        Poll::Pending
    })
    .await;
    connection.instance_deadline.set(NEVER);
    waited
}

/// `now` plus a limit in milliseconds, where 0 means none.
#[must_use]
pub fn after(now: Millis, limit: u64) -> Millis {
    if limit == 0 { NEVER } else { now.plus(limit) }
}
