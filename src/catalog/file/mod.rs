//! The catalog file as a source: read at start, watched from then on. An edit is a statement: nothing is held back. A
//! broken file keeps the old state and says so.

mod settings;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::status::{CatalogStatus, Cell, SourceFigures, unix_seconds};
use super::watch::picture::picture;
use super::{CatalogError, CatalogSource, CatalogUpdate, Note, ServiceState, Surroundings};
use crate::engine::diagnostic::Source;
use crate::engine::format::catalog_file;
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::files::FileWatch;
pub use settings::Settings;

/// A catalog file, followed.
pub struct FileSource {
    settings: Settings,
    listeners: Vec<std::net::SocketAddr>,
    status: Arc<CatalogStatus>,
    figures: Arc<Cell<SourceFigures>>,
    watch: FileWatch,
    /// Counts readings; the index of what they brought.
    generation: u64,
    known: BTreeMap<Text, Vec<Arc<Instance>>>,
    news: VecDeque<CatalogUpdate>,
}

/// What a catalog file says: every service's instances.
pub type Contents = BTreeMap<Text, Vec<Arc<Instance>>>;

const NAME: &str = "file";

impl FileSource {
    /// Reads the file and begins to watch it.
    ///
    /// # Errors
    /// The file cannot be read or is not a catalog file. At start that is an error; later it is not.
    pub fn start(
        settings: Settings,
        surroundings: &Surroundings,
        status: &Arc<CatalogStatus>,
    ) -> Result<Self, CatalogError> {
        let figures = status.source(NAME);
        let agent = settings.path.display().to_string();
        figures.with(|figures| (figures.agent, figures.answers_all) = (agent, true));
        let watch = FileWatch::new(vec![settings.path.clone()]);
        let contents = read(&settings.path)?;
        let mut source = Self {
            settings,
            listeners: surroundings.listeners.clone(),
            status: Arc::clone(status),
            figures,
            watch,
            generation: 0,
            known: BTreeMap::new(),
            news: VecDeque::new(),
        };
        source.take(contents);
        Ok(source)
    }

    /// Takes over a whole file. Services that did not change say nothing.
    fn take(&mut self, contents: Contents) {
        self.generation += 1;
        let own = super::consul::own_addresses(&self.listeners);
        for name in self.known.keys().filter(|name| !contents.contains_key(*name)) {
            self.status.forget(NAME, name);
            self.news.push_back(CatalogUpdate::Gone(name.clone()));
        }
        self.known.retain(|name, _| contents.contains_key(name));
        for (name, mut instances) in contents {
            instances.retain(|instance| !own(instance.addr));
            let mut instances = picture(std::iter::once(&instances));
            let old = self.known.get(&name);
            for instance in &mut instances {
                if let Some(same) = old.into_iter().flatten().find(|one| *one == instance) {
                    *instance = Arc::clone(same);
                }
            }
            let generation = self.generation;
            self.status.service(NAME, &name).with(|figures| {
                figures.count(instances.iter().map(AsRef::as_ref));
                (figures.index, figures.answered_at) = (generation, Some(Instant::now()));
            });
            if old == Some(&instances) {
                continue;
            }
            self.known.insert(name.clone(), instances.clone());
            self.news.push_back(CatalogUpdate::Service(ServiceState {
                name,
                index: generation,
                instances,
                note: Note::Trusted,
            }));
        }
        let changed = std::fs::metadata(&self.settings.path).and_then(|meta| meta.modified()).map(unix_seconds).ok();
        self.figures.with(|figures| {
            figures.connected = true;
            figures.last_good_at = Some(Instant::now());
            figures.token_mtime = changed;
            figures.watched = self.known.len();
            figures.last_error = None;
        });
    }
}

impl CatalogSource for FileSource {
    async fn next(&mut self) -> Result<CatalogUpdate, CatalogError> {
        loop {
            if let Some(update) = self.news.pop_front() {
                return Ok(update);
            }
            self.watch.changed().await;
            let path = self.settings.path.clone();
            let outcome = tokio::task::spawn_blocking(move || read(&path)).await;
            match outcome.map_err(|_| CatalogError::Stopped)? {
                Ok(contents) => {
                    self.take(contents);
                    tracing::info!(target: "pointsman::catalog", file = %self.settings.path.display(),
                        services = self.known.len(), changed = self.news.len(), "the catalog file was read again");
                }
                Err(error) => {
                    self.figures.with(|figures| {
                        figures.connected = false;
                        figures.counters.failures += 1;
                        figures.last_error = Some(error.to_string());
                        figures.last_error_at = Some(Instant::now());
                    });
                    tracing::error!(target: "pointsman::catalog", file = %self.settings.path.display(), %error,
                        "the changed catalog file cannot be used: its last good state stays in force");
                }
            }
        }
    }
}

/// Reads a catalog file.
///
/// # Errors
/// It cannot be read, or is not a catalog file; then with every finding, drawn.
pub fn read(path: &Path) -> Result<Contents, CatalogError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| CatalogError::Read { path: name.clone(), source })?;
    let (file, findings) = catalog_file::parse(&Source::new(name, text));
    if findings.has_errors() {
        return Err(CatalogError::Answer(findings.render()));
    }
    for warning in &findings.0 {
        tracing::warn!(target: "pointsman::catalog", finding = warning.one_line(), "in the catalog file");
    }
    Ok(file.services.into_iter().collect())
}
