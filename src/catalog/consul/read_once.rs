//! Reading a catalog once, for `pointsman catalog`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Settings;
use super::api::{self, Query};
use super::entry::{self, Origin};
use super::resolve::{Names, names_of};
use super::services::Selector;
use super::source::client;
use super::subscription::OwnAddresses;
use crate::catalog::http::{Client, Reply};
use crate::catalog::watch::picture::picture;
use crate::catalog::{CatalogError, Note, ServiceState};
use crate::engine::label::Text;

/// What one reading brought.
#[derive(Debug, Default)]
pub struct ReadOnce {
    /// The services, by name.
    pub services: Vec<ServiceState>,
    /// Instances that cannot be used, and why.
    pub problems: Vec<String>,
}

/// Reads these services, or, when none are named, those that `select` chooses, or, when it chooses by nothing, all but
/// `consul`. One connection, one reading after another.
///
/// # Errors
/// A setting that cannot be used, no connection, an error answer, or one that is unusable.
pub async fn read_once(settings: &Settings, services: &[String]) -> Result<ReadOnce, CatalogError> {
    let client = client(settings, 2)?;
    let query = Query { dc: settings.dc.first().map_or("", String::as_str), ..Query::default() };
    let names: BTreeSet<String> = match services {
        [] => listed(&client, settings, query).await?,
        some => some.iter().cloned().collect(),
    };
    let (mut out, resolver) = (ReadOnce::default(), Names::default());
    for name in names {
        let reply = ask(&client, &api::health_service(&name, query, settings), settings.head_timeout).await?;
        let entries = entry::read(&reply.body, settings, Origin::default())
            .map_err(|problem| CatalogError::Answer(format!("service {name}: {problem}")))?;
        resolver.look_up(names_of(&entries.drafts), false, settings.resolve_timeout).await;
        let (groups, unresolved) = resolver.settle(&entries.drafts, &OwnAddresses::default());
        out.problems.extend(entries.problems.iter().map(|problem| format!("service {name}: {problem}")));
        out.problems.extend(unresolved.iter().map(|id| format!("service {name}: {id}: its host name has no address")));
        out.services.push(ServiceState {
            name: Text::from(name.as_str()),
            index: api::head(&reply.headers).index,
            instances: picture(groups.values()),
            note: Note::Trusted,
        });
    }
    Ok(out)
}

async fn listed(client: &Client, settings: &Settings, query: Query<'_>) -> Result<BTreeSet<String>, CatalogError> {
    let reply = ask(client, &api::catalog_services(query, settings), settings.head_timeout).await?;
    let names = super::services::read_names(&reply.body).map_err(CatalogError::Answer)?;
    let selector = Selector::new(&settings.select)
        .map_err(|problem| CatalogError::Setting { setting: "consul.select.matches", problem })?;
    let all = *settings == Settings { select: super::Select::default(), ..settings.clone() };
    let chosen = selector.chosen(&names, false);
    Ok(names.all().filter(|name| *name != "consul" && (all || chosen.contains(*name))).map(str::to_owned).collect())
}

async fn ask(client: &Client, path: &str, within: Duration) -> Result<Reply, CatalogError> {
    let reply = client.get(path, within).await?;
    if reply.status == http::StatusCode::OK && api::is_json(&reply.headers) {
        return Ok(reply);
    }
    Err(CatalogError::Answer(format!("{}: {}", client.address(), api::complaint(&reply))))
}
