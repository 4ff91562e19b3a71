//! Rule files: text to [`RuleSet`] (as written), with every problem of every file collected.

mod across;
mod cases;
mod check;
mod file;
mod health;
mod labels;
pub mod lint;
mod lists;
mod messages;
mod overload;
mod places;
mod policies;
mod pools;
mod read;
mod rule;
pub mod ruleset;
pub mod schema;
mod split;
mod template;
mod test_file;
#[cfg(test)]
mod tests;
mod upstream;

use std::sync::Arc;

pub use lists::fill_lists;
pub use ruleset::*;
pub use template::{Part, Template};
pub use test_file::TestFile;

use super::diagnostic::{Diagnostics, Source};

/// Parses rule files that are in force together. Every problem of every file is in the diagnostics, in the order
/// of the files' names; the set holds the files without errors. With errors the set is not to be used.
#[must_use]
pub fn parse_files(sources: &[Arc<Source>]) -> (RuleSet, Diagnostics) {
    let mut sources: Vec<&Arc<Source>> = sources.iter().collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = Diagnostics::default();
    let mut parsed = Vec::new();
    for source in sources {
        let mut own = Diagnostics::default();
        let file = file::parse(source, &mut own);
        let sound = !own.has_errors();
        own.0.sort_by_key(|found| found.span.start);
        out.0.append(&mut own.0);
        parsed.extend(file.map(|file| (file, sound)));
    }
    across::pairs(&parsed, &mut out);
    across::health(&mut parsed, &mut out);
    let files = parsed.into_iter().filter(|(_, sound)| *sound).map(|(parsed, _)| Arc::new(parsed.file)).collect();
    (RuleSet { files }, out)
}
