//! What the process asks of the system about its memory, so that what connections gave back is given back.
//!
//! A proxy's memory is many small pieces that come and go with connections. In huge pages one piece that is left keeps
//! 2 MiB resident, and a buffer of 16 KiB is resident whole where a few bytes of it are used.

use std::hint::black_box;
use std::io;
use std::time::Duration;

/// How often free memory is given back.
const PERIOD: Duration = Duration::from_secs(2);

/// No huge pages for this process, whatever the system's default; for what is used from now on.
pub fn keep_small() {
    // A kernel without huge pages refuses, and gives none.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages cannot be declined");
    }
}

/// Gives free memory back to the system from time to time, for as long as it is polled.
///
/// The allocator keeps what is freed for a second, for whoever wants it next, and looks at the clock only when much is
/// allocated, or when a thread ends. A proxy whose clients have all gone silent allocates nothing: so a thread ends.
pub async fn give_back() {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        ticks.tick().await;
        let ended = end_a_thread();
        if let Err(error) = &ended
            && !failed
        {
            tracing::warn!(%error, "free memory is not given back: no thread can be had");
        }
        failed = ended.is_err();
    }
}

fn end_a_thread() -> io::Result<()> {
    // What it allocates makes it one of the allocator's threads.
    let one = || drop(black_box(Box::new(0_u8)));
    std::thread::Builder::new().name("give-back".to_owned()).stack_size(64 * 1024).spawn(one).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_declined() {
        keep_small();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
        end_a_thread().unwrap();
    }
}
