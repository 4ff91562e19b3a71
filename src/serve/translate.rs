//! Configuration as read into each part's own settings. Destructured whole: a new setting that nobody uses does not
//! compile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{self, consul, file};
use crate::config;
use crate::engine::instance::Status;
use crate::engine::label::Labels;
use crate::engine::locality::Place;
use crate::forward;
use crate::forward::patience::Patience;
use crate::observe::line_writer::Target;
use crate::observe::{access_log, metrics, recent};
use crate::publish::guard::{self, Guard};
use crate::server::{H2Limits, Limits};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Where the proxy stands.
#[must_use]
pub fn place(region: Option<String>, zone: Option<String>) -> Place {
    let labels: Labels =
        [("region", region), ("zone", zone)].into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    Place::new(labels)
}

/// The catalog's settings, and the grace of a service's last instances.
#[must_use]
pub fn catalog(from: config::CatalogSource, label_keys: Vec<(String, Vec<String>)>) -> (catalog::Settings, Duration) {
    match from {
        config::CatalogSource::File(path) => {
            let file = file::Settings { path: path.into() };
            (catalog::Settings { file: Some(file), consul: None }, Duration::ZERO)
        }
        config::CatalogSource::Consul(from) => {
            let consul = consul(*from, label_keys);
            let grace = consul.last_instance_grace;
            (catalog::Settings { consul: Some(consul), file: None }, grace)
        }
    }
}

/// The Consul source's settings.
#[must_use]
pub fn consul(from: config::Consul, label_keys: Vec<(String, Vec<String>)>) -> consul::Settings {
    let config::Consul {
        address,
        token,
        token_file,
        auth,
        namespace,
        partition,
        peer,
        dc,
        tls,
        select,
        transport,
        watch,
        rates,
        hold,
        disk,
        mapping,
    } = from;
    let config::ConsulTls { ca_file, cert_file, key_file, server_name, verify } = tls;
    let config::Select { tags, prefix, regex, kinds } = select;
    let config::Transport { max_connections, failover_after, wait, head_grace, connect, body_idle, max_body, gzip } =
        transport;
    let config::Subscription { resync, stale, max_stale, initial_fetches } = watch;
    let config::Rates { watch_burst, address: per_address } = rates;
    let config::Hold { confirm, max, acl, mass_share, mass_count, mass_window, max_stale_age } = hold;
    let config::Mapping {
        address: address_from,
        resolve_every,
        resolve_timeout,
        ok_states,
        last_instance_grace,
        tag_separator,
    } = mapping;
    let states = [(ok_states.0, Status::Passing), (ok_states.1, Status::Warning)];
    consul::Settings {
        address,
        token: token.map(|secret| secret.0),
        token_file: token_file.map(PathBuf::from),
        http_auth: auth.map(|secret| secret.0),
        tls: consul::Tls {
            ca: ca_file.map(PathBuf::from),
            cert: cert_file.map(PathBuf::from),
            key: key_file.map(PathBuf::from),
            server_name,
            insecure: !verify,
        },
        dc,
        namespace,
        partition,
        peer,
        sameness_group: None,
        select: consul::Select { tags, prefixes: prefix, matches: regex },
        address_from,
        ok_states: states.into_iter().filter(|(accepted, _)| *accepted).map(|(_, status)| status).collect(),
        last_instance_grace: ms(last_instance_grace),
        tag_separator,
        label_keys: label_keys.into_iter().collect(),
        proxies: kinds,
        wait: ms(wait),
        stale,
        max_stale: ms(max_stale),
        connect_timeout: ms(connect),
        head_timeout: ms(head_grace),
        body_idle: ms(body_idle),
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        max_connections: max_connections as usize,
        move_after: failover_after,
        gzip: match gzip {
            None => consul::Gzip::Auto,
            Some(true) => consul::Gzip::Always,
            Some(false) => consul::Gzip::Never,
        },
        requests_per_second: u32::try_from(per_address.div_ceil(1_000)).unwrap_or(u32::MAX),
        burst: watch_burst,
        resync: ms(resync),
        initial_fetches: initial_fetches as usize,
        gather: Duration::ZERO,
        hold_max: max.map_or(Duration::ZERO, ms),
        hold_acl: acl.map_or(Duration::ZERO, ms),
        confirm_after: ms(confirm),
        mass_guard: consul::MassGuard {
            percent: mass_share / 10_000,
            at_least: mass_count as usize,
            within: ms(mass_window),
        },
        disk: disk.map_or_else(consul::Disk::default, |disk| {
            let config::Disk { path, max_age, after, interval } = disk;
            consul::Disk {
                path: Some(path.into()),
                max_age: ms(max_age),
                load_after: ms(after),
                min_interval: ms(interval),
            }
        }),
        max_stale_age: ms(max_stale_age),
        resolve_interval: ms(resolve_every),
        resolve_timeout: ms(resolve_timeout),
    }
}

/// What the forwarding side is told.
#[must_use]
pub fn forwarding(settings: &config::Settings) -> forward::Settings {
    forward::Settings {
        trusted_proxies: settings.trusted_proxies.clone(),
        request_id: settings.request_id,
        forwarded: settings.forwarded,
        via: settings.via,
        upgrades: settings.upgrades.clone(),
        underscores: settings.underscores,
        error_header: settings.error_header,
        debug_headers: settings.debug_headers,
        host_of_instance: settings.host_header == config::HostHeader::Instance,
        paths: settings.paths,
        target_size: usize::try_from(settings.limits.target_size).unwrap_or(usize::MAX),
        fields: settings.limits.fields as usize,
        patience: Patience {
            idle: settings.limits.body_idle,
            whole: settings.limits.body,
            rate: settings.limits.body_rate,
        },
        replay_size: usize::try_from(settings.limits.replay_size).unwrap_or(usize::MAX),
        protocol_label: settings.upstream.protocol_label.clone(),
        upstream_idle: match settings.upstream.idle {
            config::Auto::Auto => None,
            config::Auto::Set(idle) => Some(idle),
        },
        max_connections: settings.upstream.max_connections,
        answer_head: settings.upstream.head_size as usize,
        upstream_streams: settings.upstream.h2_streams,
        requests: settings.overload.requests,
        exempt_paths: settings.overload.exempt_paths.clone(),
        ..forward::Settings::default()
    }
}

/// Limits on client connections. `descriptors`: the soft limit after it was raised. `automatic_memory`: `auto` in bytes; 0:
/// none.
#[must_use]
pub fn limits(from: &config::Limits, descriptors: u64, automatic_memory: u64) -> Limits {
    let config::Limits {
        head,
        tls_handshake,
        body_idle: _,
        body: _,
        body_rate: _,
        replay_size: _,
        write_idle,
        keep_alive,
        connection_age,
        head_size,
        target_size: _,
        fields,
        connections,
        memory,
        backlog,
        unsent,
        h2_streams,
        h2_window,
        h2_connection_window,
        h2_resets,
        h2_own_resets,
        h2_frames,
        h2_send_buffer,
        connections_per_address,
    } = *from;
    let automatic = descriptors.saturating_sub(reserved(descriptors) + most_kept(descriptors));
    let connections = match connections {
        config::Auto::Auto => automatic,
        config::Auto::Set(count) => u64::from(count),
    };
    if connections < 4_096 {
        tracing::warn!(
            connections,
            descriptors,
            "few client connections are possible; raise the descriptor limit (LimitNOFILE) or set limits.connections"
        );
    }
    Limits {
        head,
        tls_handshake,
        head_size: usize::try_from(head_size).unwrap_or(usize::MAX),
        fields: fields as usize,
        keep_alive,
        write_idle,
        connection_age,
        connections: usize::try_from(connections).unwrap_or(usize::MAX),
        per_address: connections_per_address,
        memory: match memory {
            config::Auto::Auto => automatic_memory,
            config::Auto::Set(bytes) => bytes,
        },
        backlog: i32::try_from(backlog).unwrap_or(i32::MAX),
        unsent: u32::try_from(unsent).unwrap_or(u32::MAX),
        h2: H2Limits {
            streams: h2_streams,
            stream_window: window(h2_window),
            connection_window: window(h2_connection_window),
            header_list: u32::try_from(head_size).unwrap_or(u32::MAX),
            resets: h2_resets,
            own_resets: h2_own_resets,
            frames: h2_frames,
            send_buffer: usize::try_from(h2_send_buffer).unwrap_or(usize::MAX),
        },
        ..Limits::default()
    }
}

/// Descriptors for connections to instances, files and the rest.
fn reserved(descriptors: u64) -> u64 {
    256 + (descriptors / 4).min(8_192)
}

/// An eighth, as many as anybody has instances at most.
fn most_kept(descriptors: u64) -> u64 {
    (descriptors / 8).min(65_536)
}

/// How many connections active checks may leave open between them: what the clients' connections leave of their share.
#[must_use]
pub fn kept_by_checks(limits: &Limits, descriptors: u64) -> usize {
    let left = descriptors.saturating_sub(reserved(descriptors)).saturating_sub(limits.connections as u64);
    usize::try_from(left.min(most_kept(descriptors))).unwrap_or(0)
}

/// A window of HTTP/2 has 31 bits.
fn window(size: u64) -> u32 {
    u32::try_from(size.min(0x7fff_ffff)).unwrap_or(0x7fff_ffff)
}

/// The access log's settings.
#[must_use]
pub fn access_log(from: config::AccessLog) -> access_log::Settings {
    let config::AccessLog { path, sample, queue, redact } = from;
    access_log::Settings { target: Target::of(&path), sample, capacity: queue, redact }
}

/// The guard of rule changes, and what feeds it; both `None` when it is off.
#[must_use]
pub fn guard(from: config::Guard, workers: usize) -> (Option<Guard>, Option<recent::Offers>) {
    let config::Guard { mode, max_moved, max_unrouted } = from;
    let enforce = match mode {
        config::GuardMode::Off => return (None, None),
        config::GuardMode::Warn => false,
        config::GuardMode::Enforce => true,
    };
    let (offers, recent) = recent::channel(workers);
    let guard = Guard { enforce, limits: guard::Limits { max_moved, max_unrouted }, recent: Arc::new(recent) };
    (Some(guard), Some(offers))
}

/// Bounds on metrics.
#[must_use]
pub fn metrics(from: config::Metrics) -> metrics::Settings {
    let config::Metrics { label_values, series } = from;
    metrics::Settings { label_values, series }
}
