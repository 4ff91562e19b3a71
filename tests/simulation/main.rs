//! Faults in virtual time: the engine that routes beside textbook policies, to the microsecond the same in every run.
//! `cargo test --test simulation -- --nocapture` prints the table of docs/HEALTH.md.
#![allow(clippy::unwrap_used, missing_docs)]

mod fleet;
mod policies;
mod report;
mod run;
mod scenario;
mod time;

use policies::{ALL, OURS};
use report::{Row, rows, table};

/// The best of the textbook policies, by the figure given.
fn best<T: Ord>(row: &Row, figure: impl Fn(&run::Figures) -> T) -> T {
    row.figures[OURS..].iter().map(figure).min().unwrap()
}

#[test]
fn ours_is_never_worse_than_the_best_of_the_textbook_policies() {
    let rows = rows();
    println!("{}", table(&rows));
    let mut worse = Vec::new();
    for row in &rows {
        let name = format!("{} of {}", row.fault.name(), row.size);
        for (policy, ours) in ALL.iter().zip(&row.figures[..OURS]) {
            if ours.failed > best(row, |figures| figures.failed) {
                worse.push(format!("{name}: {policy} failed {}", ours.failed));
            }
        }
        let ours = row.figures[..OURS].iter().map(|figures| figures.extra).min().unwrap();
        if ours > best(row, |figures| figures.extra) + 500 {
            worse.push(format!("{name}: {ours} µs extra"));
        }
    }
    assert!(worse.is_empty(), "{}", worse.join("\n"));
}
