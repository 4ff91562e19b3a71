//! Faults in virtual time: the engine that routes beside textbook policies, to the microsecond the same in every run.
//! `cargo test --test simulation -- --nocapture` prints the tables of docs/HEALTH.md.
#![allow(clippy::unwrap_used, missing_docs)]

mod fleet;
mod policies;
mod report;
mod run;
mod scenario;
mod time;

use policies::{ALL, OURS};
use report::{Row, rows, tables};
use run::Figures;
use scenario::Fault;

/// Of so many requests one may fail by bad luck alone (three tries that each met one of ten dead among two hundred).
const LUCK: usize = 10_000;
/// Microseconds by which two means may differ without saying anything.
const NOISE: u64 = 500;

#[test]
fn ours_is_never_worse_than_the_best_of_the_textbook_policies() {
    let rows = rows();
    let printed = tables(&rows);
    println!("{printed}");
    let worse: Vec<String> = rows.iter().flat_map(worse).collect();
    assert!(worse.is_empty(), "{}", worse.join("\n"));
    let page = std::fs::read_to_string("docs/HEALTH.md").unwrap();
    assert!(page.contains(&printed), "docs/HEALTH.md has other figures");
}

/// Where a row says that ours is worse.
fn worse(row: &Row) -> Vec<String> {
    let mut found = Vec::new();
    let name = format!("{} of {}", row.fault.name(), row.size);
    for (policy, ours) in ALL.iter().zip(&row.figures[..OURS]) {
        if ours.failed > best(row, |figures| figures.failed) + ours.requests / LUCK {
            found.push(format!("{name}: {policy} failed {}", ours.failed));
        }
    }
    let extra = row.figures[..OURS].iter().map(|figures| figures.extra).min().unwrap();
    // Who prefers a zone has all of its traffic there when it is lost; who knows none has half.
    let all_there = row.fault == Fault::OwnZoneLost;
    if !all_there && extra > best(row, |figures| figures.extra) + NOISE {
        found.push(format!("{name}: {extra} µs extra"));
    }
    let reacted = row.figures[..OURS].iter().map(|figures| figures.reacted.unwrap_or(u64::MAX)).min().unwrap();
    if !all_there && reacted > best(row, |figures| figures.reacted.unwrap_or(u64::MAX)).saturating_add(2 * run::PIECE) {
        found.push(format!("{name}: reacted after {reacted} µs"));
    }
    found
}

/// The best of the textbook policies, by the figure given.
fn best<T: Ord>(row: &Row, figure: impl Fn(&Figures) -> T) -> T {
    row.figures[OURS..].iter().map(figure).min().unwrap()
}
