//! The copy on disk for a warm start (CATALOGS.md E7): written after changes, loaded when the catalog does not answer at
//! start. What comes from it is never trusted against the catalog.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::board::Board;
use super::desk::Desk;
use super::keeper::Group;
use crate::catalog::status::{CatalogStatus, unix_seconds};
use crate::catalog::{Note, Wanted};
use crate::engine::instance::{Instance, Status, Weights};
use crate::engine::label::Text;

/// Where and when.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The file.
    pub path: PathBuf,
    /// Older is ignored.
    pub max_age: Duration,
    /// How long the catalog may take to answer at start.
    pub load_after: Duration,
    /// Between two writes at least.
    pub min_interval: Duration,
    /// The names of the parts, in their order on the board.
    pub parts: Vec<String>,
}

/// The file's form. Another version is ignored.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    /// xxh3 of `state`, in hexadecimal.
    checksum: String,
    /// Unix time in seconds.
    saved_at: u64,
    /// [`State`] as JSON text.
    state: String,
}

/// Part name, service name.
type State = BTreeMap<String, BTreeMap<String, SavedService>>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedService {
    index: u64,
    instances: Vec<Saved>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Saved {
    identity: String,
    id: String,
    addr: SocketAddr,
    host: String,
    node: String,
    dc: String,
    labels: BTreeMap<String, String>,
    tags: Vec<String>,
    weights: Weights,
    status: Status,
}

/// Loads the copy when the catalog is slow, and writes it for as long as the source lives.
pub async fn keep(copy: Copy, board: Arc<Board>, status: Arc<CatalogStatus>, mut wanted: watch::Receiver<Wanted>) {
    tokio::time::sleep(copy.load_after).await;
    let names = wanted.borrow_and_update().clone();
    warm(&copy, &board, &status, &names).await;
    let mut written = None;
    let mut pause = copy.min_interval;
    loop {
        tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
        let now = board.with(|desk, _| fingerprint(desk));
        if now.is_none() || now == written {
            continue;
        }
        let state = board.with(|desk, _| snapshot(desk, &copy.parts));
        let (path, began) = (copy.path.clone(), Instant::now());
        let outcome = tokio::task::spawn_blocking(move || write(&path, &state, SystemTime::now())).await;
        match outcome.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string())) {
            Ok(()) => {
                written = now;
                // A large catalog is not written for more than a tenth of the time.
                pause = copy.min_interval.max(began.elapsed() * 9);
            }
            Err(error) => {
                tracing::warn!(target: "pointsman::catalog", file = %copy.path.display(), error,
                    "the catalog's copy cannot be written; a restart would be cold");
                pause = Duration::from_secs(60);
            }
        }
    }
}

async fn warm(copy: &Copy, board: &Board, status: &CatalogStatus, wanted: &Wanted) {
    let late = copy.parts.iter().enumerate().any(|(part, _)| {
        wanted.all && !board.with(|desk, _| is_answered(desk, part))
            || wanted.services.iter().any(|name| {
                board.with(|desk, _| desk.keeper(part, name).is_none_or(|keeper| keeper.answered().is_none()))
            })
    });
    if !late {
        return;
    }
    let (path, max_age) = (copy.path.clone(), copy.max_age);
    let read = tokio::task::spawn_blocking(move || load(&path, max_age, SystemTime::now())).await;
    let state = match read.map_err(|error| error.to_string()).and_then(|state| state) {
        Ok(state) => state,
        Err(reason) => {
            tracing::warn!(target: "pointsman::catalog", file = %copy.path.display(), reason,
                "the catalog has not answered yet, and there is no usable copy of it on disk");
            return;
        }
    };
    let mut services = 0;
    for (part, name) in copy.parts.iter().enumerate() {
        for (service, saved) in state.get(name).into_iter().flatten() {
            let service = Text::from(service.as_str());
            if !wanted.all && !wanted.services.contains(&service) {
                continue;
            }
            let groups = restore(&service, &saved.instances);
            let count = groups.len();
            if board.with(|desk, _| desk.warm(part, &service, saved.index, groups)) {
                services += 1;
                status.service(name, &service).with(|figures| {
                    figures.from_disk = true;
                    figures.index = saved.index;
                    figures.note = Note::Held { instances: count, why: super::keeper::Doubt::Warm };
                });
            }
        }
    }
    tracing::warn!(target: "pointsman::catalog", file = %copy.path.display(), services,
        "the catalog has not answered yet: starting from the copy on disk");
}

/// Whether there are services of this part, and all of them are answered.
fn is_answered(desk: &Desk, part: usize) -> bool {
    let mut keepers = desk.keepers().filter(|(of, ..)| *of == part).peekable();
    keepers.peek().is_some() && keepers.all(|(_, _, keeper)| keeper.answered().is_some())
}

/// What decides whether to write: which instances there are, by pointer. `None` before the first answer.
fn fingerprint(desk: &Desk) -> Option<u64> {
    use std::hash::{Hash, Hasher};
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut any = false;
    for (part, name, keeper) in desk.keepers().filter(|(_, _, keeper)| keeper.answered().is_some()) {
        any = true;
        (part, name, keeper.len()).hash(&mut hasher);
        for (_, group) in keeper.groups() {
            for instance in group {
                (Arc::as_ptr(instance) as usize).hash(&mut hasher);
            }
        }
    }
    any.then(|| hasher.finish())
}

fn snapshot(desk: &Desk, parts: &[String]) -> State {
    let mut state = State::new();
    for (part, name, keeper) in desk.keepers() {
        let Some(source) = parts.get(part) else { continue };
        let instances = keeper.groups().flat_map(|(_, group)| group).map(|instance| save(instance)).collect();
        let saved = SavedService { index: keeper.index(), instances };
        state.entry(source.clone()).or_default().insert(name.to_string(), saved);
    }
    state
}

fn save(instance: &Instance) -> Saved {
    Saved {
        identity: instance.identity.to_string(),
        id: instance.id.to_string(),
        addr: instance.addr,
        host: instance.host.to_string(),
        node: instance.node.to_string(),
        dc: instance.dc.to_string(),
        labels: instance.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        tags: instance.tags.iter().map(ToString::to_string).collect(),
        weights: instance.weights,
        status: instance.status,
    }
}

fn restore(service: &Text, saved: &[Saved]) -> BTreeMap<Text, Group> {
    let mut groups: BTreeMap<Text, Group> = BTreeMap::new();
    for one in saved {
        let instance = Instance {
            identity: one.identity.as_str().into(),
            id: one.id.as_str().into(),
            service: service.clone(),
            addr: one.addr,
            host: one.host.as_str().into(),
            node: one.node.as_str().into(),
            dc: one.dc.as_str().into(),
            labels: one.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            tags: one.tags.iter().map(|tag| Text::from(tag.as_str())).collect(),
            weights: one.weights,
            status: one.status,
        };
        groups.entry(instance.identity.clone()).or_default().push(Arc::new(instance));
    }
    groups
}

/// Writes beside the file and renames: a reader sees the old one or the new one.
fn write(path: &Path, state: &State, now: SystemTime) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let state = serde_json::to_string(state)?;
    let checksum = format!("{:016x}", xxh3_64(state.as_bytes()));
    let envelope = Envelope { version: VERSION, checksum, saved_at: unix_seconds(now), state };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("tmp-{}", std::process::id()));
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(&envelope)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn load(path: &Path, max_age: Duration, now: SystemTime) -> Result<State, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let envelope: Envelope = serde_json::from_slice(&text).map_err(|error| format!("it is damaged: {error}"))?;
    if envelope.version != VERSION {
        return Err(format!("it has version {}, this program reads {VERSION}", envelope.version));
    }
    if envelope.checksum != format!("{:016x}", xxh3_64(envelope.state.as_bytes())) {
        return Err("it is damaged: its checksum does not match".to_owned());
    }
    let age = unix_seconds(now).saturating_sub(envelope.saved_at);
    if age > max_age.as_secs() {
        return Err(format!("it is {age} s old; at most {} s are allowed", max_age.as_secs()));
    }
    serde_json::from_str(&envelope.state).map_err(|error| format!("it is damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::watch::picture::sample;

    fn state() -> State {
        let saved = SavedService { index: 7, instances: vec![save(&sample("web", "a")), save(&sample("web", "b"))] };
        [("consul".to_owned(), [("web".to_owned(), saved)].into())].into()
    }

    #[test]
    fn a_copy_reads_back_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/copy.json");
        write(&path, &state(), SystemTime::now()).unwrap();
        assert_eq!(load(&path, Duration::from_secs(60), SystemTime::now()).unwrap(), state());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        let groups = restore(&"web".into(), &state()["consul"]["web"].instances);
        assert_eq!(*groups[&Text::from("test/a")][0], *sample("web", "a"));
    }

    #[test]
    fn an_old_a_damaged_and_a_foreign_copy_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.json");
        let hour = Duration::from_secs(3_600);
        write(&path, &state(), SystemTime::now() - 2 * hour).unwrap();
        assert!(load(&path, hour, SystemTime::now()).unwrap_err().contains("old"));
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.replace("127.0.0.1", "127.0.0.2")).unwrap();
        assert!(load(&path, 3 * hour, SystemTime::now()).unwrap_err().contains("checksum"));
        std::fs::write(&path, whole.replace("\"version\":1", "\"version\":2")).unwrap();
        assert!(load(&path, 3 * hour, SystemTime::now()).unwrap_err().contains("version 2"));
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(load(&path, 3 * hour, SystemTime::now()).is_err());
    }
}
