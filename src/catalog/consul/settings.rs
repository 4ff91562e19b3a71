//! Settings of the Consul source: every number of CATALOGS.md section 2, with its default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::duration;
use crate::engine::instance::Status;

/// `catalog: {consul: …}`. What is not set here comes from `CONSUL_*` ([`Settings::fill_from_env`]), then from defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `http://`, `https://` or `unix://` addresses, one or a list; the first that works is used, the next one after
    /// `move_after` transport errors in a row. Default `http://127.0.0.1:8500`.
    #[serde(deserialize_with = "one_or_many")]
    pub address: Vec<String>,
    /// The ACL token. Prefer `token_file`. Never logged.
    #[serde(skip_serializing)]
    pub token: Option<String>,
    /// A file with the ACL token; read again when it changes and on every 403.
    pub token_file: Option<PathBuf>,
    /// `user:password` for a proxy in front of Consul (HTTP Basic). Never logged.
    #[serde(skip_serializing)]
    pub http_auth: Option<String>,
    /// TLS towards `https://` addresses.
    pub tls: Tls,
    /// Datacenters to subscribe to, one or a list; each is a subscription of its own, and one's failure marks only
    /// that one stale. Empty: the agent's own.
    #[serde(deserialize_with = "one_or_many")]
    pub dc: Vec<String>,
    /// Enterprise namespace; sent only when set.
    pub namespace: Option<String>,
    /// Enterprise partition; sent only when set.
    pub partition: Option<String>,
    /// Cluster peer; sent only when set.
    pub peer: Option<String>,
    /// Sameness group; sent only when set.
    pub sameness_group: Option<String>,
    /// Services besides those that the rules name.
    pub select: Select,
    /// Which of an instance's addresses is used: `service`, or a name of `TaggedAddresses` such as `lan` or `wan`.
    pub address_from: String,
    /// Catalog states that may take traffic. Default passing and warning.
    pub ok_states: Vec<Status>,
    /// How long the last routable instances of a service that all turn critical together keep their traffic (an agent
    /// that restarts makes its HTTP checks critical for a moment); applied where tables are published. 0: off.
    /// Default 2 s.
    #[serde(with = "duration")]
    pub last_instance_grace: Duration,
    /// Text between key and value in a tag. Default `=`.
    pub tag_separator: String,
    /// Other spellings of label keys, first present one wins: `version: [ver, app-version]`. Default none.
    pub label_keys: BTreeMap<String, Vec<String>>,
    /// Whether instances whose `Kind` is not empty (Connect proxies and gateways) are read. Default no.
    pub proxies: bool,
    /// How long Consul may hold a query. 1 s to 10 min; default 55 s, so that with Consul's own sixteenth on top it stays
    /// under the usual 60 s of proxies.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// Whether any server may answer (`stale`). Default yes.
    pub stale: bool,
    /// The age of a stale answer above which it is read again from the leader. Default 5 s.
    #[serde(with = "duration")]
    pub max_stale: Duration,
    /// Time for connecting and the TLS handshake. Default 3 s.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Time for the head of an answer on top of what the query may be held. Default 10 s (7.3 s is what Consul takes
    /// to notice that it has no leader).
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// Time between parts of a body. Default 10 s.
    #[serde(with = "duration")]
    pub body_idle: Duration,
    /// Bytes of a body, as sent and inflated. Default 64 MiB (50,000 instances are 55).
    pub max_body: usize,
    /// Connections to one address at most. Default 64: twice that plus company stays under Consul's 200 a client.
    pub max_connections: usize,
    /// Transport errors in a row after which the next address is tried. Default 3.
    pub move_after: u32,
    /// Whether answers may be compressed: `auto` (not on loopback or a socket), `always`, `never`.
    pub gzip: Gzip,
    /// Requests a second to one address. Default 50.
    pub requests_per_second: u32,
    /// Requests that one watch may make in a row before it is held to one a second. Default 5.
    pub burst: u32,
    /// Between full readings of a service, give or take a fifth. Default 5 min.
    #[serde(with = "duration")]
    pub resync: Duration,
    /// First fetches at once at start. Default 16.
    pub initial_fetches: usize,
    /// Changes within this time of the first one go together. Default 100 ms.
    #[serde(with = "duration")]
    pub gather: Duration,
    /// How long an untrusted loss is held before it is accepted with a warning; 0: until an operator accepts it.
    /// Default 60 s.
    #[serde(with = "duration")]
    pub hold_max: Duration,
    /// The same where the loss looks like a withdrawn permission. Default 0, for ever.
    #[serde(with = "duration")]
    pub hold_acl: Duration,
    /// Between the two equal readings that confirm a small loss. Default 2 s.
    #[serde(with = "duration")]
    pub confirm_after: Duration,
    /// The guard against mass removal.
    pub mass_guard: MassGuard,
    /// The copy on disk for a warm start.
    pub disk: Disk,
    /// Age of the last good answer after which a service's state is dropped although the catalog is unreachable.
    /// Default 0: never.
    #[serde(with = "duration")]
    pub max_stale_age: Duration,
    /// Between resolutions of an instance's host name. Default 30 s.
    #[serde(with = "duration")]
    pub resolve_interval: Duration,
    /// Time for one resolution. Default 5 s.
    #[serde(with = "duration")]
    pub resolve_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            address: Vec::new(),
            token: None,
            token_file: None,
            http_auth: None,
            tls: Tls::default(),
            dc: Vec::new(),
            namespace: None,
            partition: None,
            peer: None,
            sameness_group: None,
            select: Select::default(),
            address_from: "service".to_owned(),
            ok_states: vec![Status::Passing, Status::Warning],
            last_instance_grace: secs(2),
            tag_separator: "=".to_owned(),
            label_keys: BTreeMap::new(),
            proxies: false,
            wait: secs(55),
            stale: true,
            max_stale: secs(5),
            connect_timeout: secs(3),
            head_timeout: secs(10),
            body_idle: secs(10),
            max_body: 64 << 20,
            max_connections: 64,
            move_after: 3,
            gzip: Gzip::Auto,
            requests_per_second: 50,
            burst: 5,
            resync: secs(300),
            initial_fetches: 16,
            gather: Duration::from_millis(100),
            hold_max: secs(60),
            hold_acl: Duration::ZERO,
            confirm_after: secs(2),
            mass_guard: MassGuard::default(),
            disk: Disk::default(),
            max_stale_age: Duration::ZERO,
            resolve_interval: secs(30),
            resolve_timeout: secs(5),
        }
    }
}

/// TLS towards Consul. Files are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates that sign Consul's (PEM). Default: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM).
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// The name that Consul's certificate must carry. Default: the address's host.
    pub server_name: Option<String>,
    /// Accepts any certificate. For tests on a bench; a warning is logged.
    pub insecure: bool,
}

/// Services besides those that the rules name, chosen over the catalog's list. Empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Select {
    /// Services with one of these tags on some instance.
    #[serde(deserialize_with = "one_or_many")]
    pub tags: Vec<String>,
    /// Services whose name starts with one of these.
    #[serde(deserialize_with = "one_or_many")]
    pub prefixes: Vec<String>,
    /// Services whose whole name matches.
    pub matches: Option<String>,
}

/// When answers may be compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gzip {
    /// Not on loopback or a socket.
    #[default]
    Auto,
    /// On every address.
    Always,
    /// On none.
    Never,
}

/// Holds everything back when too much of the catalog would go at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MassGuard {
    /// Percent of all instances above which a removal is held; 100 switches the guard off. Default 50.
    pub percent: u32,
    /// And at least so many instances. Default 10.
    pub at_least: usize,
    /// Removals within this time are counted together. Default 5 s.
    #[serde(with = "duration")]
    pub within: Duration,
}

impl Default for MassGuard {
    fn default() -> Self {
        Self { percent: 50, at_least: 10, within: Duration::from_secs(5) }
    }
}

/// The copy on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// The file. Default: `catalog-consul.json` in `$STATE_DIRECTORY` where systemd gives one, else no copy is kept.
    pub path: Option<PathBuf>,
    /// A copy older than this is ignored. Default 24 h.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// How long Consul may take to answer at start before the copy is loaded. Default 2 s.
    #[serde(with = "duration")]
    pub load_after: Duration,
    /// Between two writes at least. Default 1 s.
    #[serde(with = "duration")]
    pub min_interval: Duration,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            path: None,
            max_age: Duration::from_secs(24 * 3600),
            load_after: Duration::from_secs(2),
            min_interval: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// Fills what is not set from Consul's own variables, then from defaults. `lookup` is the environment.
    pub fn fill_from_env(&mut self, lookup: &dyn Fn(&str) -> Option<String>) {
        let var = |name: &str| lookup(name).filter(|value| !value.is_empty());
        if self.address.is_empty() {
            let tls = var("CONSUL_HTTP_SSL").is_some_and(|value| truth(&value));
            let address = var("CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned());
            self.address = vec![if address.contains("://") {
                address
            } else {
                format!("{}://{address}", if tls { "https" } else { "http" })
            }];
        }
        if self.token.is_none() && self.token_file.is_none() {
            self.token_file = var("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from);
            if self.token_file.is_none() {
                self.token = var("CONSUL_HTTP_TOKEN");
            }
        }
        self.http_auth = self.http_auth.take().or_else(|| var("CONSUL_HTTP_AUTH"));
        self.namespace = self.namespace.take().or_else(|| var("CONSUL_NAMESPACE"));
        self.partition = self.partition.take().or_else(|| var("CONSUL_PARTITION"));
        let path = |set: &mut Option<PathBuf>, name: &str| {
            if set.is_none() {
                *set = var(name).map(PathBuf::from);
            }
        };
        path(&mut self.tls.ca, "CONSUL_CACERT");
        path(&mut self.tls.cert, "CONSUL_CLIENT_CERT");
        path(&mut self.tls.key, "CONSUL_CLIENT_KEY");
        self.tls.server_name = self.tls.server_name.take().or_else(|| var("CONSUL_TLS_SERVER_NAME"));
        self.tls.insecure |= var("CONSUL_HTTP_SSL_VERIFY").is_some_and(|value| !truth(&value));
        if self.disk.path.is_none() {
            let folder = var("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from));
            self.disk.path = folder.map(|folder| folder.join("catalog-consul.json"));
        }
    }
}

fn truth(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "f" | "no")
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(one) => vec![one],
        Written::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(mut settings: Settings, env: &[(&str, &str)]) -> Settings {
        settings.fill_from_env(&|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        settings
    }

    #[test]
    fn consul_s_own_variables_fill_what_is_not_set() {
        let env = [
            ("CONSUL_HTTP_ADDR", "consul.internal:8501"),
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
            ("CONSUL_HTTP_TOKEN", "secret"),
            ("CONSUL_CACERT", "/ca.pem"),
        ];
        let all = filled(Settings::default(), &env);
        assert_eq!(all.address, ["https://consul.internal:8501"]);
        assert_eq!(all.token.as_deref(), Some("secret"));
        assert_eq!(all.tls.ca.as_deref(), Some(std::path::Path::new("/ca.pem")));
        assert!(all.tls.insecure);

        let set = Settings {
            address: vec!["unix:///run/consul.sock".to_owned()],
            token_file: Some("/run/token".into()),
            ..Settings::default()
        };
        let kept = filled(set, &env);
        assert_eq!((kept.address[0].as_str(), kept.token), ("unix:///run/consul.sock", None));
        assert_eq!(filled(Settings::default(), &[]).address, ["http://127.0.0.1:8500"]);
    }

    #[test]
    fn settings_are_read_strictly_and_secrets_are_not_written() {
        let read: Settings = serde_json::from_str(
            r#"{"address": "http://a:8500", "token": "s3cret", "hold_max": "30s", "select": {"prefixes": "web-"}}"#,
        )
        .unwrap();
        assert_eq!(read.hold_max, Duration::from_secs(30));
        assert_eq!(read.select.prefixes, ["web-"]);
        assert!(!serde_json::to_string(&read).unwrap().contains("s3cret"));
        let error = serde_json::from_str::<Settings>(r#"{"hold_maximum": "30s"}"#).unwrap_err();
        assert!(error.to_string().contains("hold_maximum"));
    }
}
