//! Configuration as read into each part's own settings. Destructured whole: a new setting that nobody uses does not
//! compile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::consul;
use crate::config;
use crate::engine::instance::Status;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
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
        services,
        tls,
        select,
        transport,
        watch,
        rates,
        backoff,
        hold,
        disk,
        mapping,
    } = from;
    todo!()
}
