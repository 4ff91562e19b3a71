//! Files that are followed: paths in, "something has changed" out. Rules, the catalog file and tokens use it.
//!
//! The system's notifications only make it quick; what counts is a fingerprint that is also taken every two seconds,
//! so that network file systems, replaced folders and symbolic links swapped in one step (as Kubernetes does with its
//! ConfigMaps) are noticed all the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long to wait after a notification for the rest of the same edit.
const SETTLE: Duration = Duration::from_millis(30);

/// How often to look without a notification.
const POLL: Duration = Duration::from_secs(2);

/// Follows files and folders (one level deep).
pub struct FileWatch {
    paths: Vec<PathBuf>,
    seen: BTreeSet<Stamp>,
    notified: mpsc::Receiver<()>,
    /// A notification came, and nobody has looked since.
    told: bool,
    /// When to look without one. Both outlive a cancelled wait.
    next_look: Option<tokio::time::Instant>,
    /// `None` where the system cannot notify; polling remains.
    _watcher: Option<RecommendedWatcher>,
}

/// What makes a file another file: where it really is, and its size, time and kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    path: PathBuf,
    real: Option<PathBuf>,
    length: u64,
    modified: Option<SystemTime>,
}

impl FileWatch {
    /// Follows these paths from their state now on. A path need not exist yet.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let (notify, notified) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event| {
            if may_change(&event) {
                // Full means that somebody is about to look anyway.
                let _ = notify.try_send(());
            }
        });
        let watcher = match watcher {
            Ok(mut watcher) => {
                for folder in folders(&paths) {
                    if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                        tracing::debug!(folder = %folder.display(), %error, "not notified of changes; polling");
                    }
                }
                Some(watcher)
            }
            Err(error) => {
                tracing::debug!(%error, "the system cannot notify of file changes; polling");
                None
            }
        };
        let seen = stamps(&paths);
        Self { paths, seen, notified, told: false, next_look: None, _watcher: watcher }
    }

    /// Follows these too, from their state now on. What was followed goes on from where it was: nothing that has not
    /// been seen yet is lost.
    #[must_use]
    pub fn widened(self, more: Vec<PathBuf>) -> Self {
        let added: Vec<PathBuf> = more.into_iter().filter(|path| !self.paths.contains(path)).collect();
        if added.is_empty() {
            return self;
        }
        let mut watch = Self::new(self.paths.iter().chain(&added).cloned().collect());
        watch.seen = self.seen.into_iter().chain(stamps(&added)).collect();
        // Whoever was to notify of a change may have been dropped with it.
        watch.told = true;
        watch
    }

    /// Waits until one of the files is another than it was. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            let next = *self.next_look.get_or_insert_with(|| tokio::time::Instant::now() + POLL);
            self.told = self.told || tokio::time::timeout_at(next, self.notified.recv()).await.is_ok();
            if self.told {
                tokio::time::sleep(SETTLE).await;
                while self.notified.try_recv().is_ok() {}
            }
            let paths = self.paths.clone();
            // The task can only fail by a panic or at shutdown; then nothing has been seen to change.
            let Ok(now) = tokio::task::spawn_blocking(move || stamps(&paths)).await else { continue };
            (self.told, self.next_look) = (false, None);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Whether something may be another than it was. That somebody has opened a file or a folder is notified, too: to look
/// for that would be to look again and again, for each look opens the folder.
fn may_change(event: &notify::Result<Event>) -> bool {
    !matches!(event, Ok(Event { kind: EventKind::Access(how), .. }) if *how != AccessKind::Close(AccessMode::Write))
}

/// The folders whose notifications tell of these paths: the paths that are folders, and every path's parent.
fn folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            all.insert(path.clone());
        }
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => all.insert(parent.to_path_buf()),
            _ => all.insert(PathBuf::from(".")),
        };
    }
    all
}

fn stamps(paths: &[PathBuf]) -> BTreeSet<Stamp> {
    let mut all = BTreeSet::new();
    for path in paths {
        all.insert(stamp(path));
        for entry in path.read_dir().into_iter().flatten().flatten() {
            all.insert(stamp(&entry.path()));
        }
    }
    all
}

fn stamp(path: &Path) -> Stamp {
    let metadata = path.metadata().ok();
    Stamp {
        path: path.to_path_buf(),
        real: path.canonicalize().ok(),
        length: metadata.as_ref().map_or(0, std::fs::Metadata::len),
        modified: metadata.and_then(|m| m.modified().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn noticed(watch: &mut FileWatch) {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.expect("the change is noticed");
    }

    #[tokio::test]
    async fn a_wider_watch_loses_nothing_that_was_not_seen_yet() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.pem"), folder.path().join("b.pem"));
        std::fs::write(&first, "one").unwrap();
        std::fs::write(&second, "one").unwrap();
        let watch = FileWatch::new(vec![first.clone()]);
        std::fs::write(&first, "three").unwrap();
        let mut watch = watch.widened(vec![first, second.clone()]);
        noticed(&mut watch).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_err(), "once");
        std::fs::write(&second, "three").unwrap();
        noticed(&mut watch).await;
    }

    #[tokio::test]
    async fn an_edit_a_new_file_and_a_removed_one_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::new(vec![folder.path().to_path_buf()]);
        std::fs::write(&file, "three").unwrap();
        noticed(&mut watch).await;
        std::fs::write(folder.path().join("b.yaml"), "b").unwrap();
        noticed(&mut watch).await;
        std::fs::remove_file(&file).unwrap();
        noticed(&mut watch).await;
    }

    #[tokio::test]
    async fn a_look_is_no_reason_to_look_again() {
        // Its parent is watched, too: not one that others write to.
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("rules");
        let file = folder.join("a.yaml");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "one").unwrap();
        let paths = vec![folder, file.clone()];
        let mut watch = FileWatch::new(paths.clone());
        assert_eq!(stamps(&paths), watch.seen);
        std::fs::read(&file).unwrap();
        let told = tokio::time::timeout(Duration::from_millis(200), watch.notified.recv()).await;
        assert!(told.is_err(), "nothing has changed");
        std::fs::write(&file, "three").unwrap();
        noticed(&mut watch).await;
    }

    #[tokio::test]
    async fn a_wait_that_is_cancelled_again_and_again_still_notices() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::new(vec![file.clone()]);
        std::fs::write(&file, "three").unwrap();
        let noticed = async {
            let short = SETTLE + Duration::from_millis(40);
            while tokio::time::timeout(short, watch.changed()).await.is_err() {}
        };
        tokio::time::timeout(Duration::from_secs(10), noticed).await.expect("the change is noticed");
    }

    #[tokio::test]
    async fn a_symbolic_link_swapped_in_one_step_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("..data");
        for name in ["v1", "v2"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("web.yaml"), "same size").unwrap();
        }
        std::os::unix::fs::symlink("v1", &link).unwrap();
        std::os::unix::fs::symlink("..data/web.yaml", folder.path().join("web.yaml")).unwrap();
        let mut watch = FileWatch::new(vec![folder.path().join("web.yaml")]);
        std::os::unix::fs::symlink("v2", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), &link).unwrap();
        noticed(&mut watch).await;
    }
}
