//! The table.

use std::fmt::Write as _;
use std::thread;

use super::policies::ALL;
use super::run::{Figures, run};
use super::scenario::Fault;
use super::time::{MS, Micros};

/// One fault and one size of pool, all policies.
pub struct Row {
    pub fault: Fault,
    pub size: usize,
    pub figures: Vec<Figures>,
}

/// All runs. They share nothing, so they are spread over threads.
pub fn rows() -> Vec<Row> {
    let cells: Vec<(Fault, usize)> = Fault::ALL.into_iter().flat_map(|f| [2, 10, 200].map(|size| (f, size))).collect();
    let policies = |(fault, size): (Fault, usize)| Row {
        fault,
        size,
        figures: ALL.iter().map(|policy| run(policy, fault, size)).collect(),
    };
    thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                let own: Vec<_> = cells.iter().copied().enumerate().filter(|(at, _)| at % 2 == half).collect();
                scope.spawn(move || own.into_iter().map(|(at, cell)| (at, policies(cell))).collect::<Vec<_>>())
            })
            .collect();
        let mut all: Vec<(usize, Row)> = halves.into_iter().flat_map(|half| half.join().unwrap()).collect();
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, row)| row).collect()
    })
}

/// As they stand in docs/HEALTH.md: a table a figure.
pub fn tables(rows: &[Row]) -> String {
    let failed = table(rows, "Failed requests", |figures| format!("{} of {}", figures.failed, figures.requests));
    let extra = table(rows, "Mean extra time, a failure counted as 15 s", |figures| span(figures.extra));
    let p99 = table(rows, "99th percentile of the requests served", |figures| span(figures.p99));
    let reacted = table(rows, "Time to react", |figures| match figures.reacted {
        Some(after) => format!("{} s", tenths(after / MS)),
        None => "–".to_owned(),
    });
    let tries = table(rows, "Tries for a hundred requests", |figures| figures.tries.to_string());
    [failed, extra, p99, reacted, tries].join("\n")
}

fn table(rows: &[Row], title: &str, cell: impl Fn(&Figures) -> String) -> String {
    let mut out =
        format!("### {title}\n\n| fault | of | {} |\n|---|---|{}\n", ALL.join(" | "), "---|".repeat(ALL.len()));
    for row in rows {
        let cells: Vec<String> = row.figures.iter().map(&cell).collect();
        let _ = writeln!(out, "| {} | {} | {} |", row.fault.name(), row.size, cells.join(" | "));
    }
    out
}

fn span(micros: Micros) -> String {
    match micros {
        0..10_000 => format!("{} ms", tenths(micros)),
        10_000..1_000_000 => format!("{} ms", micros / MS),
        _ => format!("{} s", tenths(micros / MS)),
    }
}

/// Thousands with one decimal.
fn tenths(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 1_000, thousandths % 1_000 / 100)
}
