//! The source: checks the settings, starts one subscription a datacenter, keeps the copy on disk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::HeaderName;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::roster::keep_roster;
use super::services::{Listed, Selector, follow_list};
use super::subscription::{Blocking, OwnAddresses, Subscription};
use super::{Gzip, Settings};
use crate::catalog::http::connect::TlsSettings;
use crate::catalog::http::{Address, Client, Token, client, token};
use crate::catalog::status::CatalogStatus;
use crate::catalog::watch::board::Board;
use crate::catalog::watch::desk::Desk;
use crate::catalog::watch::disk;
use crate::catalog::watch::guard::GuardPolicy;
use crate::catalog::watch::keeper::HoldPolicy;
use crate::catalog::watch::limiter::Limiter;
use crate::catalog::{CatalogError, CatalogSource, CatalogUpdate, Surroundings, Wanted};

/// A Consul cluster, followed.
#[derive(Debug)]
pub struct Source {
    board: Arc<Board>,
    opened: Option<Instant>,
    tasks: JoinSet<()>,
}

impl Source {
    /// Starts following.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn start(
        settings: Settings,
        surroundings: &Surroundings,
        wanted: watch::Receiver<Wanted>,
        status: &Arc<CatalogStatus>,
    ) -> Result<Self, CatalogError> {
        check(&settings)?;
        let settings = Arc::new(settings);
        let desk = Desk::new(
            HoldPolicy {
                hold_max: millis(settings.hold_max),
                hold_acl: millis(settings.hold_acl),
                confirm_after: millis(settings.confirm_after),
            },
            GuardPolicy {
                percent: settings.mass_guard.percent,
                at_least: settings.mass_guard.at_least,
                within: millis(settings.mass_guard.within),
            },
        );
        let board = Arc::new(Board::new(desk, settings.gather));
        let client = Arc::new(client(&settings, settings.max_connections)?);
        let mut tasks = JoinSet::new();
        let dcs = if settings.dc.is_empty() { vec![String::new()] } else { settings.dc.clone() };
        let blocking = Blocking::default();
        let mut subscriptions = Vec::new();
        for (part, dc) in dcs.into_iter().enumerate() {
            let selector = selector(&settings)?;
            let name = if dc.is_empty() { "consul".to_owned() } else { format!("consul/{dc}") };
            let figures = status.source(&name);
            figures.with(|figures| figures.agent = client.address().to_string());
            let sub = Arc::new(Subscription {
                part,
                name,
                dc,
                settings: Arc::clone(&settings),
                client: Arc::clone(&client),
                board: Arc::clone(&board),
                status: Arc::clone(status),
                figures,
                requests: Mutex::new(Limiter::new(
                    settings.requests_per_second,
                    settings.requests_per_second,
                    board.now(),
                )),
                starting: Semaphore::new(settings.initial_fetches.max(1)),
                blocking: blocking.clone(),
                rotated: Default::default(),
                listed: watch::Sender::new(Listed::default()),
                rereading: Semaphore::new(1),
                names: Default::default(),
                own: OwnAddresses::new(&surroundings.listeners),
            });
            tasks.spawn(follow_list(Arc::clone(&sub)));
            tasks.spawn(keep_roster(Arc::clone(&sub), selector, wanted.clone()));
            subscriptions.push(sub);
        }
        if let Some(path) = settings.disk.path.clone() {
            let names = subscriptions.iter().map(|sub| sub.name.clone()).collect();
            let copy = disk::Copy {
                path,
                max_age: settings.disk.max_age,
                load_after: settings.disk.load_after,
                min_interval: settings.disk.min_interval,
                parts: names,
            };
            tasks.spawn(disk::keep(copy, Arc::clone(&board), Arc::clone(status), wanted));
        }
        if !settings.max_stale_age.is_zero() {
            tasks.spawn(drop_stale(Arc::clone(&board), settings.max_stale_age));
        }
        Ok(Self { board, opened: None, tasks })
    }

    /// What is believed, for an operator's actions.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }
}

impl CatalogSource for Source {
    async fn next(&mut self) -> Result<CatalogUpdate, CatalogError> {
        tokio::select! {
            update = self.board.next(&mut self.opened) => Ok(update),
            Some(ended) = self.tasks.join_next() => {
                let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                tracing::error!(target: "pointsman::catalog", reason, "a task of the Consul source has stopped");
                Err(CatalogError::Stopped)
            }
        }
    }
}

/// E6 for those who want it: drops what is older than they allow.
async fn drop_stale(board: Arc<Board>, max_age: Duration) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for service in board.with(|desk, now| desk.drop_stale(millis(max_age), now)) {
            tracing::error!(target: "pointsman::catalog", %service,
                "the catalog has been unreachable for longer than max_stale_age: its instances leave the table");
        }
    }
}

/// A client for these settings.
///
/// # Errors
/// A setting that cannot be used.
pub(super) fn client(settings: &Settings, max_connections: usize) -> Result<Client, CatalogError> {
    let addresses: Result<Vec<Address>, String> =
        settings.address.iter().map(|text| Address::parse(text, 8500)).collect();
    let addresses = addresses.map_err(wrong("consul.address"))?;
    if addresses.is_empty() {
        return Err(wrong("consul.address")("none is set".to_owned()));
    }
    let header = HeaderName::from_static("x-consul-token");
    let token = match (&settings.token_file, &settings.token) {
        (Some(path), _) => Some(Token::file(header, path.clone())),
        (None, Some(text)) => Some(Token::literal(header, text).map_err(wrong("consul.token"))?),
        (None, None) => None,
    };
    let authorization =
        settings.http_auth.as_deref().map(token::basic).transpose().map_err(wrong("consul.http_auth"))?;
    let tls = &settings.tls;
    Ok(Client::new(client::Settings {
        addresses,
        token,
        authorization,
        tls: TlsSettings {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            server_name: tls.server_name.clone(),
            insecure: tls.insecure,
        },
        max_connections,
        connect_timeout: settings.connect_timeout,
        body_idle: settings.body_idle,
        max_body: settings.max_body,
        move_after: settings.move_after,
        gzip: match settings.gzip {
            Gzip::Auto => None,
            Gzip::Always => Some(true),
            Gzip::Never => Some(false),
        },
    }))
}

fn selector(settings: &Settings) -> Result<Selector, CatalogError> {
    Selector::new(&settings.select).map_err(wrong("consul.select.matches"))
}

fn check(settings: &Settings) -> Result<(), CatalogError> {
    let wait = settings.wait;
    if wait < Duration::from_secs(1) || wait > Duration::from_secs(600) {
        return Err(wrong("consul.wait")("it must be between 1s and 10m".to_owned()));
    }
    if settings.max_connections < 2 {
        return Err(wrong("consul.max_connections")("it must be at least 2".to_owned()));
    }
    if settings.tls.cert.is_some() != settings.tls.key.is_some() {
        return Err(wrong("consul.tls")("cert and key go together".to_owned()));
    }
    if settings.tls.insecure {
        tracing::warn!(target: "pointsman::catalog",
            "certificates of the catalog are not verified (tls.insecure, CONSUL_HTTP_SSL_VERIFY)");
    }
    selector(settings).map(drop)
}

fn wrong(setting: &'static str) -> impl Fn(String) -> CatalogError {
    move |problem| CatalogError::Setting { setting, problem }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
