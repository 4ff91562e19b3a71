//! The catalog file as a source.

use std::path::Path;
use std::time::Duration;

use pointsman::catalog::{self, CatalogUpdate, Running, Surroundings, Wanted, file};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(10);

struct Followed {
    running: Running,
    _wanted: watch::Sender<Wanted>,
    _stop: watch::Sender<bool>,
}

fn follow(path: &Path) -> Followed {
    let (wanted, names) = watch::channel(Wanted { services: ["web".into()].into(), ..Wanted::default() });
    let (stop, shutdown) = watch::channel(false);
    let settings = catalog::Settings { file: Some(file::Settings { path: path.into() }), consul: None };
    let running = catalog::start(settings, &Surroundings::default(), names, shutdown).expect("the file is good");
    Followed { running, _wanted: wanted, _stop: stop }
}

impl Followed {
    /// The next update: the service and its ports, or `None` when it left.
    async fn next(&mut self) -> (String, Option<Vec<u16>>) {
        let update = tokio::time::timeout(SOON, self.running.updates.recv()).await.expect("an update comes soon");
        match update.expect("the source lives") {
            CatalogUpdate::Service(state) => {
                let mut ports: Vec<u16> = state.instances.iter().map(|one| one.addr.port()).collect();
                ports.sort_unstable();
                (state.name.to_string(), Some(ports))
            }
            CatalogUpdate::Gone(name) => (name.to_string(), None),
        }
    }
}

fn text(service: &str, ports: &[u16]) -> String {
    let one = |port: &u16| format!("    - {{id: i{port}, address: 127.0.0.1, port: {port}}}\n");
    format!("services:\n  {service}:\n{}", ports.iter().map(one).collect::<String>())
}

#[tokio::test]
async fn an_edit_is_a_statement_and_a_broken_file_keeps_the_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalog.yaml");
    let many: Vec<u16> = (9001..9031).collect();
    std::fs::write(&path, text("web", &many)).expect("written");
    let mut followed = follow(&path);
    assert_eq!(followed.next().await, ("web".to_owned(), Some(many)));
    assert!(followed.running.status.readiness().ready);

    std::fs::write(&path, "services: {web: [{id: x, adress: nowhere}]}").expect("written");
    for _ in 0..1_000 {
        if followed.running.status.readiness().degraded {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let readiness = followed.running.status.readiness();
    assert!(readiness.ready && readiness.degraded && readiness.reasons[0].contains("adress"), "{readiness:?}");

    std::fs::write(&path, text("web", &[9001])).expect("written");
    assert_eq!(followed.next().await, ("web".to_owned(), Some(vec![9001])), "no mass guard for a file");
    assert!(!followed.running.status.readiness().degraded);

    std::fs::write(&path, text("api", &[9002])).expect("written");
    let mut both = [followed.next().await, followed.next().await];
    both.sort();
    assert_eq!(both, [("api".to_owned(), Some(vec![9002])), ("web".to_owned(), None)]);
    assert!(followed.running.status.readiness().ready, "a file answers for every service");
}

#[tokio::test]
async fn a_folder_replaced_through_a_link_is_noticed_as_kubernetes_does_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (version, port) in [("v1", 9001), ("v2", 9002)] {
        std::fs::create_dir(at(version)).expect("a folder");
        std::fs::write(at(version).join("catalog.yaml"), text("web", &[port])).expect("written");
    }
    std::os::unix::fs::symlink("v1", at("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/catalog.yaml", at("catalog.yaml")).expect("a link");
    let mut followed = follow(&at("catalog.yaml"));
    assert_eq!(followed.next().await.1, Some(vec![9001]));
    std::os::unix::fs::symlink("v2", at("..data.new")).expect("a link");
    std::fs::rename(at("..data.new"), at("..data")).expect("replaced in one step");
    assert_eq!(followed.next().await.1, Some(vec![9002]));
}

#[tokio::test]
async fn a_bad_file_at_start_is_refused_with_its_findings() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalog.yaml");
    std::fs::write(&path, "servces: {}").expect("written");
    let (_wanted, names) = watch::channel(Wanted::default());
    let (_stop, shutdown) = watch::channel(false);
    let settings = catalog::Settings { file: Some(file::Settings { path }), consul: None };
    let error = catalog::start(settings, &Surroundings::default(), names, shutdown).expect_err("it is refused");
    assert!(error.to_string().contains("servces"), "{error}");
}
