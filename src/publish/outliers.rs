//! Compares the members of each pool once a second and reports who is an outlier.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::MissedTickBehavior;

use crate::engine::table::Table;
use crate::engine::table::outliers::{Outliers, PERIOD};
use crate::engine::time::Draw;
use crate::observe::clock::Clock;
use crate::observe::transitions::Transitions;

/// Judges the published tables for as long as it is polled.
pub async fn follow(table: Arc<ArcSwap<Table>>, clock: Clock, transitions: Transitions, seed: u64) {
    let mut outliers = Outliers::default();
    let mut luck = Draw(seed);
    let mut ticks = tokio::time::interval(Duration::from_millis(PERIOD));
    // After a stall there is one window to look at, not several.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let moved = outliers.judge(&table.load_full(), clock.now(), Draw(luck.advance()));
        for (endpoint, transition) in moved {
            transitions.report(&endpoint, transition);
        }
    }
}
