//! `service: "*"`: one file for every service of the catalog that no file names, as a file of its own for each.
//!
//! The file itself stays in the router without a claim; what is made of it stands behind all files as written, in the
//! order of the services' names. Making it anew costs the services that came; the others are shared.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::hosts::Hosts;
use super::lower;
use super::router::{FileIdx, Router, RouterFile};
use crate::engine::diagnostic::{Diagnostics, Spanned};
use crate::engine::label::Text;
use crate::engine::rules::{HostPattern, RuleFile, SERVICE_PLACE};

/// The services that Consul lists and nobody routes to.
const NEVER: &str = "consul";

/// A file for every service that no file names.
#[derive(Clone, Debug)]
pub(super) struct Star {
    /// Its place among the files as written.
    pub(super) file: FileIdx,
    /// Where the numbers of its pattern sets begin. What is made of it shares them: a cache knows whose it is.
    pub(super) sets: usize,
}

impl Router {
    /// Whether a file is for every service that no file names.
    #[must_use]
    pub fn has_stars(&self) -> bool {
        !self.stars.is_empty()
    }

    /// The files as written, in their order, without those that were made for services.
    #[must_use]
    pub fn written(&self) -> &[Arc<RouterFile>] {
        &self.files[..self.files.len() - self.made]
    }

    /// Whether new endpoints of a service wait for their first check, as a file for every service says. `None`: a file
    /// names the service, or there is no file for every service.
    #[must_use]
    pub fn stars_hold_new(&self, service: &str) -> Option<bool> {
        let written = self.written();
        let asks = |star: &Star| written[star.file as usize].check.as_ref().is_some_and(|check| check.hold_new);
        let unnamed = service != NEVER && !written.iter().any(|file| &*file.service == service);
        (self.has_stars() && unnamed).then(|| self.stars.iter().any(asks))
    }

    /// The service that the catalog must have for a file for every service to claim this host; for dry runs without a
    /// catalog. `None`: no such file's hosts look like it.
    #[must_use]
    pub fn service_of_host(&self, host: &str) -> Option<Text> {
        let patterns = self.stars.iter().flat_map(|star| &self.files[star.file as usize].ruleset.hosts);
        patterns.map(|pattern| &pattern.value).find_map(|pattern| {
            let (text, wildcard) = match pattern {
                HostPattern::Exact(text) => (text, false),
                HostPattern::Wildcard(text) => (text, true),
            };
            let (before, after) = text.split_once(SERVICE_PLACE)?;
            let rest = host.strip_suffix(after)?;
            let service = match wildcard {
                true => rest.rsplit_once(&format!(".{before}"))?.1,
                false => rest.strip_prefix(before)?,
            };
            let same = !service.is_empty() && host.ends_with(&text.replace(SERVICE_PLACE, service));
            same.then(|| service.into())
        })
    }

    /// The same rules for these services of the catalog. `None`: they are as they should be.
    ///
    /// # Errors
    /// What a service's name makes impossible.
    pub fn expanded<'s>(&self, services: impl Iterator<Item = &'s Text>) -> Result<Option<Self>, Diagnostics> {
        if self.stars.is_empty() {
            return Ok(None);
        }
        let written = self.written();
        let unnamed = |name: &&Text| &***name != NEVER && !written.iter().any(|file| file.service == **name);
        let names: Vec<&Text> = services.filter(unnamed).collect();
        let have = self.files[written.len()..].iter().map(|file| &file.service);
        if have.eq(names.iter().copied().flat_map(|name| std::iter::repeat_n(name, self.stars.len()))) {
            return Ok(None);
        }
        let known: FxHashMap<(&Text, &str), &Arc<RouterFile>> = self.files[written.len()..]
            .iter()
            .map(|file| ((&file.service, file.ruleset.source.name.as_str()), file))
            .collect();
        let mut files = written.to_vec();
        let mut hosts = Hosts::clone(&self.written_hosts);
        let mut out = Diagnostics::default();
        for name in names {
            for star in &self.stars {
                let template = &written[star.file as usize].ruleset;
                let file = match known.get(&(name, template.source.name.as_str())) {
                    Some(known) => Arc::clone(known),
                    None => Arc::new(lower::file(&made_for(template, name), &mut star.sets.clone(), &mut out)),
                };
                for host in &file.ruleset.hosts {
                    for path in &file.ruleset.paths {
                        // A file that names this host and path itself goes first, as the narrower statement.
                        let _ = hosts.claim(Some(&host.value), &path.value, files.len() as FileIdx);
                    }
                }
                files.push(file);
            }
        }
        if out.has_errors() {
            return Err(out);
        }
        Ok(Some(Self {
            made: files.len() - written.len(),
            files,
            hosts,
            guarded: self.guarded,
            stars: self.stars.clone(),
            written_hosts: Arc::clone(&self.written_hosts),
        }))
    }
}

/// The file as if it were written for this service.
fn made_for(template: &Arc<RuleFile>, service: &Text) -> Arc<RuleFile> {
    let mut file = RuleFile::clone(template);
    file.service = Spanned::new(Text::clone(service), template.service.span);
    let label = service.to_ascii_lowercase();
    for host in &mut file.hosts {
        let (HostPattern::Exact(text) | HostPattern::Wildcard(text)) = &mut host.value;
        *text = text.replace(SERVICE_PLACE, &label).into();
    }
    Arc::new(file)
}
