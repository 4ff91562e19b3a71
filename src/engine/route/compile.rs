//! Rule set to router: what concerns several files. One file's part is in [`super::lower`].

use std::sync::Arc;

use super::expand::Star;
use super::lower;
use super::patterns::TOTAL_LIMIT;
use super::router::{FileIdx, Router};
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::engine::rules::{HostPattern, RuleFile, RuleSet};

impl Router {
    /// Compiles all files.
    ///
    /// # Errors
    /// Everything that stands in the way, of all files: claims made twice, patterns that are too large, parts of the
    /// language that this version does not have.
    pub fn compile(set: &RuleSet) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let mut router = Self::default();
        let (mut sets, mut memory) = (0, 0);
        for (at, file) in set.files.iter().enumerate() {
            if file.is_for_any_service() {
                router.stars.push(Star { file: at as FileIdx, sets });
            } else {
                claim(&mut router, set, at, file, &mut out);
            }
            router.guarded |= file.trusted.is_some();
            let lowered = lower::file(file, &mut sets, &mut out);
            memory += lowered.fields.patterns.iter().map(|patterns| patterns.memory()).sum::<usize>();
            router.files.push(Arc::new(lowered));
        }
        if let Some(file) = set.files.first().filter(|_| memory > TOTAL_LIMIT) {
            let message = format!("all patterns together take {} MiB compiled; the most is 64 MiB", memory >> 20);
            out.push(Diagnostic::error("E133", &file.source, Span::default(), message));
        }
        if router.has_stars() {
            router.written_hosts = Arc::new(router.hosts.clone());
        }
        if out.has_errors() { Err(out) } else { Ok(router) }
    }
}

/// The claims of one file: each host with each path.
fn claim(router: &mut Router, set: &RuleSet, at: usize, file: &Arc<RuleFile>, out: &mut Diagnostics) {
    let hosts: Vec<_> = match file.hosts.as_slice() {
        [] => vec![None],
        hosts => hosts.iter().map(Some).collect(),
    };
    for host in hosts {
        for path in &file.paths {
            let taken = router.hosts.claim(host.map(|host| &host.value), &path.value, at as FileIdx);
            let Err(first) = taken else { continue };
            if first as usize == at {
                continue;
            }
            let first = &set.files[first as usize];
            let span = host.map_or(path.span, |host| host.span);
            let what = host.map_or("any host".into(), |host| shown(&host.value));
            let message = format!("{what} with path `{}` is claimed by two files", path.value);
            let theirs = first.hosts.iter().find(|other| Some(&other.value) == host.map(|host| &host.value));
            let theirs = theirs.map_or(first.service.span, |other| other.span);
            out.push(Diagnostic::error("E017", &file.source, span, message).related(
                &first.source,
                theirs,
                "first claimed",
            ));
        }
    }
}

fn shown(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => format!("`{host}`"),
        HostPattern::Wildcard(suffix) => format!("`*.{suffix}`"),
    }
}
