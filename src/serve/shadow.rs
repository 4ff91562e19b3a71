//! The shadow rules' parts, made from the settings.

use std::path::PathBuf;

use super::StartError;
use super::commands::Told;
use crate::admin::shadow::ShadowView;
use crate::config;
use crate::forward;
use crate::observe::line_writer::{LineThread, Target};
use crate::observe::shadow::ShadowLog;
use crate::publish::Published;

/// What runs beside the live rules.
pub struct Shadowing {
    /// Where the shadow rules are.
    pub paths: Vec<PathBuf>,
    /// Disagreements.
    pub log: ShadowLog,
    /// Their writer.
    pub thread: LineThread,
    sample: u32,
}

impl Shadowing {
    /// Starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(from: config::Shadow) -> Result<Self, StartError> {
        let config::Shadow { rules, sample, log, queue, redact } = from;
        let target = log.as_deref().map(Target::of);
        let (log, thread) = ShadowLog::start(target.as_ref(), queue, &redact)
            .map_err(|source| StartError::Io { what: "shadow.log".to_owned(), source })?;
        Ok(Self { paths: vec![rules.into()], log, thread, sample })
    }

    /// The workers' part.
    #[must_use]
    pub fn for_workers(&self, published: &Published) -> forward::shadow::Shadowing {
        forward::shadow::Shadowing { slot: published.candidate.clone(), log: self.log.clone(), sample: self.sample }
    }

    /// The admin side's part.
    #[must_use]
    pub fn for_admin(&self, published: &Published, told: &Told) -> ShadowView {
        ShadowView {
            paths: self.paths.clone(),
            slot: published.candidate.clone(),
            log: self.log.clone(),
            live: told.live(),
            shadow: told.files_of(&self.paths),
        }
    }
}
