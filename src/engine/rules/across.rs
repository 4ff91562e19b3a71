//! What must hold between files.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::Parsed;
use super::ruleset::HostPattern;
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::engine::label::Text;

/// A host (`None`: any) and a path.
type Pair = (Option<HostPattern>, Text);

/// A (host, path) pair is claimed once (E017).
pub(super) fn pairs(files: &[(Parsed, bool)], out: &mut Diagnostics) {
    let mut claimed: HashMap<Pair, (&Arc<Source>, Span)> = HashMap::new();
    for (parsed, _) in files.iter().filter(|(parsed, _)| parsed.claims) {
        let file = &parsed.file;
        let hosts: Vec<_> = match file.hosts.as_slice() {
            [] => vec![(None, file.service.span)],
            hosts => hosts.iter().map(|host| (Some(host.value.clone()), host.span)).collect(),
        };
        for (host, host_at) in &hosts {
            for path in &file.paths {
                // Nothing is written for the default path; the host, or the service, stands for it.
                let at = if path.span == Span::default() { *host_at } else { path.span };
                let place = (&file.source, at);
                let Some((source, span)) = claimed.insert((host.clone(), path.value.clone()), place) else { continue };
                let shown = match host {
                    None => "any host".to_owned(),
                    Some(HostPattern::Exact(host)) => format!("`{host}`"),
                    Some(HostPattern::Wildcard(suffix)) => format!("`*.{suffix}`"),
                };
                let message = format!("{shown} with the path `{}` is claimed twice", path.value);
                out.push(Diagnostic::error("E017", &file.source, at, message).related(source, span, "first claimed"));
            }
        }
    }
}

/// Files for one service agree on `check`, `eject`, `overload`, `slow_start` and `upstream`, or one of them has it
/// (E018). What one has
/// then holds for all of them.
pub(super) fn health(files: &mut [(Parsed, bool)], out: &mut Diagnostics) {
    let mut services: HashMap<Text, Vec<usize>> = HashMap::new();
    for (at, (parsed, _)) in files.iter().enumerate() {
        services.entry(parsed.file.service.value.clone()).or_default().push(at);
    }
    let mut groups: Vec<Vec<usize>> = services.into_values().filter(|group| group.len() > 1).collect();
    groups.sort();
    for group in groups {
        agree(files, &group, out, "check", |p| (p.check_at, p.file.check.clone()), |p, v| p.file.check = v);
        agree(files, &group, out, "eject", |p| (p.eject_at, p.file.eject.clone()), |p, v| p.file.eject = v);
        let upstream = |p: &Parsed| (p.upstream_at, p.file.upstream.clone());
        agree(files, &group, out, "upstream", upstream, |p, v| p.file.upstream = v);
        agree(files, &group, out, "overload", |p| (p.overload_at, p.file.overload), |p, v| p.file.overload = v);
        let slow_start = |p: &Parsed| (p.slow_start_at, p.slow_start_at.map(|_| p.file.slow_start));
        agree(files, &group, out, "slow_start", slow_start, |p, v| p.file.slow_start = v.unwrap_or_default());
    }
}

fn agree<T: PartialEq + Clone>(
    files: &mut [(Parsed, bool)],
    group: &[usize],
    out: &mut Diagnostics,
    key: &str,
    read: impl Fn(&Parsed) -> (Option<Span>, Option<T>),
    write: impl Fn(&mut Parsed, Option<T>),
) {
    let mut first: Option<(usize, Span, T)> = None;
    for &at in group {
        let parsed = &files[at].0;
        let (Some(span), Some(value)) = read(parsed) else { continue };
        match &first {
            None => first = Some((at, span, value)),
            Some((other, other_at, agreed)) if *agreed != value => {
                let service = &parsed.file.service.value;
                let message = format!("two files for the service `{service}` disagree on `{key}`");
                out.push(
                    Diagnostic::error("E018", &parsed.file.source, span, message)
                        .related(&files[*other].0.file.source, *other_at, "the other")
                        .help("health belongs to the instance: say it in one file, or the same in both"),
                );
            }
            Some(_) => {}
        }
    }
    let Some((_, _, agreed)) = first else { return };
    for &at in group {
        write(&mut files[at].0, Some(agreed.clone()));
    }
}
