//! Every metric name, with its help text and its labels. Names are a contract (docs/OPERATIONS.md): add, never rename.

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One metric family.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// As scraped, `_total` included; the histograms' suffixes are not.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Label names in order.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($(#[$doc:meta])* $id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $($(#[$doc])* #[doc = concat!("`", $name, "`: ", $help)]
        pub static $id: Family = Family { name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*] };)*
        /// All of them, in the order of the page that lists them.
        pub static ALL: &[&Family] = &[$(&$id),*];
    };
}

families! {
    // Requests.
    REQUESTS = Counter "pointsman_requests_total" ["service", "rule", "pool", "version", "env", "region", "status"]
        "Requests answered, by where they went and by status class.";
    REQUEST_DURATION = Histogram "pointsman_request_duration_seconds" ["service", "rule", "pool"]
        "From the request's head to the answer's last byte.";
    FIRST_BYTE = Histogram "pointsman_upstream_first_byte_seconds" ["service", "rule", "pool"]
        "From the attempt's start to the head of the instance's answer.";
    REQUEST_BYTES = Counter "pointsman_request_bytes_total" ["service", "rule", "pool"]
        "Body bytes received from clients.";
    RESPONSE_BYTES = Counter "pointsman_response_bytes_total" ["service", "rule", "pool"]
        "Body bytes sent to clients.";
    ERRORS = Counter "pointsman_errors_total" ["service", "detail"]
        "Answers that the proxy itself gave, by the detail word of its error table.";
    REFUSALS = Counter "pointsman_refusals_total" ["reason"]
        "Connections and heads refused before there was a request: malformed, too large, too slow.";
    IN_FLIGHT = Gauge "pointsman_in_flight" ["worker"]
        "Requests and tunnels between head and last byte.";
    TUNNELS = Gauge "pointsman_tunnels" ["worker"]
        "Tunnels that are open: connections after an upgrade, extended CONNECT, and those that are passed on unread.";
    // Attempts.
    ATTEMPTS = Counter "pointsman_upstream_attempts_total" ["service", "pool", "result"]
        "Tries at instances, by result.";
    RETRIES = Counter "pointsman_retries_total" ["service", "rule", "reason"]
        "Tries after the first, by what the try before met.";
    RETRIES_REFUSED = Counter "pointsman_retries_refused_total" ["service", "reason"]
        "Retries that were not made: budget spent, unsafe, no attempts left.";
    SPLIT_REROUTED = Counter "pointsman_split_rerouted_total" ["service", "rule"]
        "Requests whose arm had nobody routable and that went to another arm.";
    MIRRORED = Counter "pointsman_mirrored_total" ["service", "rule", "result"]
        "Copies of requests for a mirror: answered, failed, timeout; or not made: busy, no_instance, too_large, incomplete.";
    PANIC_PICKS = Counter "pointsman_panic_picks_total" ["service", "pool"]
        "Requests sent to anybody of a pool because nobody was routable.";
    PROBES = Counter "pointsman_probes_total" ["service", "result"]
        "Requests that tried an ejected instance for readmission.";
    LAST_RESORTS = Counter "pointsman_last_resorts_total" ["service", "result"]
        "Retries that found nobody but an ejected instance, and tried it.";
    // Limits.
    LIMITED = Counter "pointsman_limited_total" ["service", "rule", "limit"]
        "Requests refused by a limit: rate, concurrency (of a rule or file), service, instance.";
    SHED = Counter "pointsman_shed_total" ["limit"]
        "Requests refused before they were decided, because no more is carried: requests (of the process), listener, memory.";
    MEMORY_HELD = Gauge "pointsman_memory_account_bytes" []
        "What clients' connections and requests hold in buffers, by the account.";
    MEMORY_LIMIT = Gauge "pointsman_memory_limit_bytes" []
        "The most of it (`limits.memory`).";
    MEMORY_RESETS = Counter "pointsman_memory_resets_total" ["of"]
        "Answers that clients did not take and that were cut because memory was short: connection, stream.";
    WRITE_CUTS = Counter "pointsman_write_cuts_total" ["of"]
        "Answers cut because the client took nothing for `limits.write_idle`: connection, stream.";
    RETRY_BUDGET = Gauge "pointsman_retry_budget_left" ["service"]
        "Retries and hedges that the service's budget still allows.";
    LIMIT_KEYS_EVICTED = Counter "pointsman_limit_keys_evicted_total" ["service", "rule"]
        "Keys of a rate limit that were forgotten before their bucket was full again.";
    CONCURRENCY_LIMIT = Gauge "pointsman_concurrency_limit" ["service", "of"]
        "Requests at once in force: of the service, and of its instances together.";
    QUEUED = Counter "pointsman_queued_total" ["service", "rule", "result"]
        "Requests that waited for a place at an instance: served, timeout, full.";
    WAITING = Gauge "pointsman_queue_waiting" ["service"]
        "Requests that wait for a place at an instance.";
    HEDGES = Counter "pointsman_hedges_total" ["service", "rule", "result"]
        "Second tries beside slow first ones: sent, won, not sent for want of budget.";
    // Connections.
    CONNECTIONS = Gauge "pointsman_connections" ["worker"]
        "Client connections that are open.";
    ACCEPTED = Counter "pointsman_connections_accepted_total" ["worker"]
        "Client connections accepted.";
    HANDED_OVER = Counter "pointsman_connections_handed_over_total" ["worker"]
        "Client connections given to a worker with fewer.";
    CLOSED = Counter "pointsman_connections_closed_total" ["reason"]
        "Client connections over HTTP/1 that the proxy ended: keep_alive (idle), connection_age, drain, refused (with its last answer).";
    TLS_HANDSHAKES = Counter "pointsman_tls_handshakes_total" ["result"]
        "TLS handshakes of clients: full, resumed, failed, timeout.";
    TLS_EXPIRY = Gauge "pointsman_tls_certificate_expiry_seconds" ["listener", "name"]
        "Until a certificate in force expires; negative: since it has.";
    TLS_OCSP_EXPIRY = Gauge "pointsman_tls_ocsp_expiry_seconds" ["listener", "name"]
        "Until the OCSP response that is stapled to a certificate is over; 0: a file is named, and nothing is stapled.";
    H2_CONNECTIONS = Counter "pointsman_h2_connections_total" ["worker"]
        "Client connections that chose HTTP/2.";
    H2_STREAMS = Counter "pointsman_h2_streams_total" ["worker"]
        "Streams that clients opened over HTTP/2.";
    H2_RESETS = Counter "pointsman_h2_resets_total" ["worker"]
        "Streams that clients took back before the end of the answer.";
    H2_GOAWAYS = Counter "pointsman_h2_goaways_total" ["worker"]
        "HTTP/2 connections that were told to leave: idle, too old, draining.";
    ACCEPT_ERRORS = Counter "pointsman_accept_errors_total" ["reason"]
        "Failures to accept, such as no descriptors left.";
    UPSTREAM_OPENED = Counter "pointsman_upstream_connections_opened_total" ["worker"]
        "Connections made to instances.";
    UPSTREAM_REUSED = Counter "pointsman_upstream_connections_reused_total" ["worker"]
        "Requests that took a pooled connection.";
    UPSTREAM_CONNECTIONS = Gauge "pointsman_upstream_connections" ["worker"]
        "Connections to instances that are open.";
    UPSTREAM_WAITS = Counter "pointsman_upstream_waits_total" ["result"]
        "Requests that waited because an instance had as many connections as it may (`upstream.max_connections`): served, refused.";
    UPSTREAM_H2_GOAWAYS = Counter "pointsman_upstream_h2_goaways_total" ["worker"]
        "HTTP/2 connections that instances told us to leave.";
    UPSTREAM_H2_RESETS = Counter "pointsman_upstream_h2_resets_total" ["worker"]
        "Streams that instances took back before the end of the answer.";
    UPSTREAM_UNVERIFIED = Gauge "pointsman_upstream_unverified" ["service"]
        "1 while certificates of the service's instances are not checked (`verify: false`).";
    PANICS = Counter "pointsman_panics_total" ["where"]
        "Faults of ours that were caught.";
    // Health.
    EJECTIONS = Counter "pointsman_ejections_total" ["service", "reason"]
        "Instances taken out of routing by evidence or by an operator.";
    READMISSIONS = Counter "pointsman_readmissions_total" ["service"]
        "Instances taken back.";
    EJECT_REFUSED = Counter "pointsman_eject_refused_total" ["service"]
        "Verdicts not honoured in a pool because of its cap.";
    CHECKS = Counter "pointsman_checks_total" ["service", "result"]
        "Active checks, by result.";
    CHECK_CONNECTIONS = Counter "pointsman_check_connections_total" ["service", "connection"]
        "HTTP and gRPC checks by their connection: fresh, kept from the check before, or again: fresh as the kept one had ended.";
    ENDPOINTS = Gauge "pointsman_endpoints" ["service", "version", "state"]
        "Endpoints of the services that rules name, by version (20 a service, then `other`) and by live state.";
    EJECTED = Gauge "pointsman_pool_ejected" ["service", "pool"]
        "Endpoints of the pool that are out by their evidence, those that its cap keeps in traffic included.";
    ROUTABLE = Gauge "pointsman_pool_routable" ["service", "pool"]
        "Routable endpoints as published.";
    MEMBERS = Gauge "pointsman_pool_members" ["service", "pool"]
        "Endpoints of the pool that the catalog names.";
    // Catalog.
    CATALOG_AGE = Gauge "pointsman_catalog_age_seconds" ["source", "service"]
        "Since the service's last good answer.";
    CATALOG_INDEX = Gauge "pointsman_catalog_index" ["source", "service"]
        "The catalog's index of that answer.";
    CATALOG_WAKEUPS = Counter "pointsman_catalog_wakeups_total" ["source", "service", "changed"]
        "Answers to blocked queries, with and without a change.";
    CATALOG_HELD = Gauge "pointsman_catalog_held_instances" ["source", "service"]
        "Instances that the catalog no longer names and that the guard keeps.";
    CATALOG_INSTANCES = Gauge "pointsman_catalog_instances" ["source", "service", "status"]
        "Instances by the catalog's verdict.";
    CATALOG_ERRORS = Counter "pointsman_catalog_errors_total" ["source", "kind"]
        "Failed catalog calls, by kind.";
    CATALOG_EVENTS = Counter "pointsman_catalog_events_total" ["source", "kind"]
        "Resets, lower indexes, holds, accepted after a hold, skipped instances.";
    CATALOG_BYTES = Counter "pointsman_catalog_bytes_total" ["source"]
        "Bytes read from the catalog.";
    // Tables and rules.
    TABLE_GENERATION = Gauge "pointsman_table_generation" []
        "The generation of the table in force.";
    PUBLISH_SECONDS = Histogram "pointsman_publish_seconds" ["cause"]
        "Time to build and publish a table, by what asked for it: catalog, rules, health, failback.";
    RELOADS = Counter "pointsman_reload_total" ["what", "result"]
        "Reloads of rules, certificates, tokens and files, by result.";
    READY = Gauge "pointsman_ready" []
        "1 when ready to take traffic.";
    DEGRADED = Gauge "pointsman_degraded" []
        "1 when ready with something missing or stale.";
    SHADOW_DECISIONS = Counter "pointsman_shadow_decisions_total" ["service", "rule", "candidate_rule", "agrees"]
        "Requests decided by the shadow rules, too, by both rules and whether both send them to the same place.";
    // The log writers themselves.
    LOG_LINES = Counter "pointsman_log_lines_total" ["log", "result"]
        "Lines of the access log and of the process log: written, dropped (writer behind), failed (disk).";
    EVENTS = Counter "pointsman_events_total" ["kind"]
        "Events, by kind.";
    SERIES = Gauge "pointsman_metric_series" []
        "Request series held.";
    BUILD = Gauge "pointsman_build_info" ["version"]
        "Always 1; the label names the build.";
    UPTIME = Gauge "pointsman_uptime_seconds" []
        "Since the process started.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_prefixed_and_counters_end_in_total() {
        let names: BTreeSet<_> = ALL.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            assert!(family.name.starts_with("pointsman_"), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert!(family.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
    }

    #[test]
    fn the_operators_page_lists_every_family_as_it_is() {
        let page = include_str!("../../docs/OPERATIONS.md");
        for family in ALL {
            let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
            let row = format!("| `{}` | {labels} | {} |", family.name, family.help);
            assert!(page.contains(&row), "docs/OPERATIONS.md lacks: {row}");
        }
    }

    #[test]
    fn the_contract_of_the_command_line_page_is_kept() {
        for name in [
            "pointsman_requests_total",
            "pointsman_request_duration_seconds",
            "pointsman_upstream_attempts_total",
            "pointsman_retries_total",
            "pointsman_ejections_total",
            "pointsman_split_rerouted_total",
            "pointsman_catalog_age_seconds",
            "pointsman_catalog_held_instances",
            "pointsman_table_generation",
            "pointsman_publish_seconds",
            "pointsman_reload_total",
            "pointsman_connections",
            "pointsman_in_flight",
        ] {
            assert!(ALL.iter().any(|f| f.name == name), "{name}");
        }
    }
}
