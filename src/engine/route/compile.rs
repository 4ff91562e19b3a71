//! Rule set to router: what concerns several files. One file's part is in [`super::lower`].

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::lower;
use super::patterns::TOTAL_LIMIT;
use super::router::{FileIdx, Router, RouterFile};
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::engine::label::Text;
use crate::engine::policy::{Check, Eject};
use crate::engine::rules::{HostPattern, RuleFile, RuleSet};

impl Router {
    /// Compiles all files.
    ///
    /// # Errors
    /// Everything that stands in the way, of all files: claims made twice, health settings that disagree, patterns
    /// that are too large, parts of the language that this version does not have.
    pub fn compile(set: &RuleSet) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let health = Health::of(set, &mut out);
        let mut router = Self::default();
        let (mut sets, mut memory) = (0, 0);
        for (at, file) in set.files.iter().enumerate() {
            claim(&mut router, set, at, file, &mut out);
            router.guarded |= file.trusted.is_some();
            let lowered = lower::file(file, &mut sets, &mut out);
            let (eject, check, slow_start) = health.by_service[&file.service.value];
            memory += lowered.fields.patterns.iter().map(|patterns| patterns.memory()).sum::<usize>();
            router.files.push(Arc::new(RouterFile {
                eject: eject.cloned().unwrap_or_default(),
                check: check.cloned(),
                slow_start,
                ..lowered
            }));
        }
        if let Some(file) = set.files.first().filter(|_| memory > TOTAL_LIMIT) {
            let message = format!("all patterns together take {} MiB compiled; the most is 64 MiB", memory >> 20);
            out.push(Diagnostic::error("E133", &file.source, Span::default(), message));
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
            out.push(Diagnostic::error("E130", &file.source, span, message).related(
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

/// What belongs to the service and not to a file.
struct Health<'s> {
    by_service: FxHashMap<Text, (Option<&'s Eject>, Option<&'s Check>, u64)>,
}

impl<'s> Health<'s> {
    fn of(set: &'s RuleSet, out: &mut Diagnostics) -> Self {
        let mut by_service: FxHashMap<Text, (Option<&'s Eject>, Option<&'s Check>, u64)> = FxHashMap::default();
        let mut setters: FxHashMap<(Text, &str), &'s RuleFile> = FxHashMap::default();
        for file in &set.files {
            let known = by_service.entry(Text::clone(&file.service.value)).or_default();
            let mut agree = |what: &'static str, given: bool, same: bool| {
                if !given {
                    return;
                }
                let first = setters.entry((Text::clone(&file.service.value), what)).or_insert(file);
                if !same {
                    let message = format!(
                        "`{what}` of service `{}` differs from that in {}; health belongs to the instance",
                        file.service.value, first.source.name
                    );
                    let error = Diagnostic::error("E131", &file.source, file.service.span, message);
                    out.push(error.related(&first.source, first.service.span, "the other file"));
                }
            };
            agree("eject", file.eject.is_some(), known.0.is_none() || known.0 == file.eject.as_ref());
            agree("check", file.check.is_some(), known.1.is_none() || known.1 == file.check.as_ref());
            agree("slow_start", file.slow_start > 0, known.2 == 0 || known.2 == file.slow_start);
            known.0 = known.0.or(file.eject.as_ref());
            known.1 = known.1.or(file.check.as_ref());
            known.2 = known.2.max(file.slow_start);
        }
        Self { by_service }
    }
}
