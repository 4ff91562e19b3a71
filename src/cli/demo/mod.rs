//! `pointsman demo`: sample instances in two versions and two regions, an embedded catalog, rules, proxy and admin in
//! one process, and what to try with them.

pub mod catalog;
pub mod instances;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::put;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::{self, Flags};
use crate::observe::log;
use crate::publish::rules;
use crate::serve::{RuleSource, Serving, Signals};
use catalog::{DemoCatalog, Registration};
use instances::DemoInstance;

/// What `demo` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The proxy's port; another one is taken where it is in use
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
}

const RULES: &str = include_str!("rules.yaml");

/// (id, version, region, zone)
const INSTANCES: [(&str, &str, &str, &str); 6] = [
    ("web-1", "1.2", "eu", "eu-a"),
    ("web-2", "1.2", "eu", "eu-b"),
    ("web-3", "1.2", "us", "us-a"),
    ("web-4", "1.2", "us", "us-b"),
    ("web-5", "1.3", "eu", "eu-a"),
    ("web-6", "1.3", "us", "us-a"),
];

/// How often the demo's catalog checks its instances, and how long it waits for a connection.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The running sample: catalog, instances and the folder with the rules. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Sample {
    /// Where the embedded catalog answers.
    pub catalog: SocketAddr,
    /// A folder of its own with `web.yaml`, removed on drop.
    pub rules: PathBuf,
    _tasks: JoinSet<()>,
}

impl Drop for Sample {
    fn drop(&mut self) {
        // A left-over folder in the temporary directory harms nobody, and there is nobody left to tell.
        let _ = std::fs::remove_dir_all(&self.rules);
    }
}

type Instances = Arc<Mutex<BTreeMap<String, DemoInstance>>>;

impl Sample {
    /// Starts the instances, registers them and serves the catalog.
    ///
    /// # Errors
    /// When a loopback port or the temporary folder cannot be had.
    pub async fn start() -> std::io::Result<Self> {
        let catalog = DemoCatalog::new();
        let mut running = BTreeMap::new();
        for (id, version, region, zone) in INSTANCES {
            let labels: BTreeMap<String, String> =
                [("version", version), ("region", region), ("zone", zone), ("env", "prod")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into();
            let instance = DemoInstance::start(id, 0, &labels).await?;
            catalog.register(Registration {
                id: id.to_owned(),
                name: "web".to_owned(),
                tags: vec!["http".to_owned()],
                meta: labels,
                address: instance.addr.ip().to_string(),
                port: instance.addr.port(),
            });
            running.insert(id.to_owned(), instance);
        }
        let running: Instances = Arc::new(Mutex::new(running));
        let listener = bind_preferring(8500).await?;
        let address = listener.local_addr()?;
        let app = catalog
            .router()
            .merge(axum::Router::new().route("/demo/{id}/{action}", put(act)).with_state(Arc::clone(&running)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the demo's catalog stopped");
            }
        });
        tasks.spawn(check_for_ever(catalog));
        Ok(Self { catalog: address, rules: write_rules()?, _tasks: tasks })
    }
}

/// A listener on a port that people remember, or on any free one.
pub async fn bind_preferring(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind("127.0.0.1:0").await,
    }
}

fn write_rules() -> std::io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("pointsman-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("web.yaml"), RULES)?;
    Ok(folder)
}

async fn act(
    State(instances): State<Instances>,
    UrlPath((id, action)): UrlPath<(String, String)>,
) -> (StatusCode, String) {
    let mut instances = instances.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(instance) = instances.get_mut(&id) else {
        return (StatusCode::NOT_FOUND, format!("no instance is called {id}\n"));
    };
    match action.as_str() {
        "stop" => {
            instance.stop();
            (StatusCode::OK, format!("{id} is stopped\n"))
        }
        "start" => match instance.restart() {
            Ok(()) => (StatusCode::OK, format!("{id} runs\n")),
            Err(error) => (StatusCode::CONFLICT, format!("{id} cannot start: {error}\n")),
        },
        other => (StatusCode::NOT_FOUND, format!("{other} is neither stop nor start\n")),
    }
}

/// What a Consul agent does with a TCP check: an instance that refuses is critical, one that accepts is passing.
async fn check_for_ever(catalog: DemoCatalog) {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    loop {
        ticks.tick().await;
        for (registration, status) in catalog.registrations() {
            if status == "maintenance" {
                continue;
            }
            let open = TcpStream::connect((registration.address.as_str(), registration.port));
            let alive = matches!(tokio::time::timeout(CHECK_EVERY, open).await, Ok(Ok(_)));
            catalog.set_status(&registration.id, if alive { "passing" } else { "critical" });
        }
    }
}

/// Runs until Ctrl-C. The exit status: 0, or 1 when it cannot start.
#[must_use]
pub fn run(args: &Args) -> u8 {
    match super::run::on_control_plane(demo(args.port)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => failed(&*error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> u8 {
    eprintln!("the demo cannot start: {error}");
    1
}

async fn demo(port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let mut log = log::init(log::Format::Text, "warn,pointsman::events=info")?;
    let mut signals = Signals::new()?;
    let sample = Sample::start().await?;
    // Given back at once: the proxy binds them itself.
    let listen = bind_preferring(port).await?.local_addr()?;
    let admin = bind_preferring(9900).await?.local_addr()?;
    let flags = Flags {
        listen: vec![listen.to_string()],
        admin: Some(admin.to_string()),
        consul: Some(format!("http://{}", sample.catalog)),
        rules: Some(sample.rules.display().to_string()),
        region: Some("eu".to_owned()),
        zone: Some("eu-a".to_owned()),
        ..Flags::default()
    };
    let mut settings = config::load(&flags, []).map_err(|found| found.render())?.settings;
    settings.drain = config::Drain { delay: 0, timeout: 1_000 };
    let paths = vec![sample.rules.clone()];
    let loaded = rules::read(&paths, rules::Permits::default())?;
    let serving = Serving::start(settings, RuleSource { paths, loaded }).await?;
    let admin = serving.admin.unwrap_or(admin);
    let binary = std::env::current_exe().map_or_else(|_| "pointsman".to_owned(), |path| path.display().to_string());
    print!("{}", instructions(serving.listen[0], admin, sample.catalog, &sample.rules, &binary));
    signals.stop().await;
    serving.stop(std::future::ready(())).await;
    log.close();
    Ok(())
}

/// What to try, with the real addresses. Every command can be pasted as it is.
#[must_use]
pub fn instructions(proxy: SocketAddr, admin: SocketAddr, catalog: SocketAddr, rules: &Path, binary: &str) -> String {
    let file = rules.join("web.yaml");
    let file = file.display();
    format!(
        "\
pointsman demo: six instances of `web` in versions 1.2 and 1.3, regions eu and us; the proxy stands in eu, zone eu-a.

  proxy    http://{proxy}/
  admin    http://{admin}/
  catalog  http://{catalog}/  (speaks Consul's HTTP interface)
  rules    {file}  (edit and save)

Paste into another terminal:

# a tester's header reaches 1.3
curl -s -H 'x-user-group: test' http://{proxy}/

# 5 % of the users reach 1.3, each of them always the same version
for uid in $(seq 1 400); do curl -s -b uid=$uid http://{proxy}/; done | grep -o 'version=[0-9.]*' | sort | uniq -c
for n in 1 2 3 4 5; do curl -s -b uid=7 http://{proxy}/; done

# why did this request go there?
{binary} explain --admin {admin} GET http://{proxy}/ -H 'cookie: uid=7'

# kill an instance under way: no request fails, and it is out of the routing
curl -s -X PUT http://{catalog}/demo/web-1/stop
for n in $(seq 1 200); do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{proxy}/; done | sort | uniq -c
curl -s -X PUT http://{catalog}/demo/web-1/start

# region-local first, the other region after (until the catalog's check notices, a retry may also go to version 1.3)
for id in web-1 web-2; do curl -s -X PUT http://{catalog}/demo/$id/stop; done; sleep 2
for n in 1 2 3 4 5; do curl -s -b uid=7 http://{proxy}/; done
for id in web-1 web-2; do curl -s -X PUT http://{catalog}/demo/$id/start; done

Ctrl-C ends it all.
"
    )
}
