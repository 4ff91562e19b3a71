//! Lints on `check` and `eject`: what no instance passes, what every instance passes, and what has no effect.

use super::shape::used;
use super::{Certainty, Findings};
use crate::engine::health::outlier::STDEV_ENDPOINTS;
use crate::engine::policy::{Check, Probe};
use crate::engine::upstream::{Encryption, says_https};

pub(super) fn timeout_over_interval(found: &mut Findings<'_>) {
    let Some(check) = found.file.check.as_ref().filter(|check| check.timeout >= check.interval) else { return };
    let message = format!(
        "the check's `timeout` ({} ms) is not shorter than its `interval` ({} ms)",
        check.timeout, check.interval
    );
    let label = format!("an instance that does not answer is asked every {} ms and more", check.timeout);
    found.report(found.key("check"), message, label).certainty(Certainty::Proven);
}

pub(super) fn never_passes(found: &mut Findings<'_>) {
    let Some(check) = &found.file.check else { return };
    let at = found.key("check");
    if let Probe::Http { method, body: Some(body), .. } = &check.probe
        && method == "HEAD"
        && !body.is_empty()
    {
        let message = "the check expects a body, and an answer to HEAD has none";
        found.report(at, message, "no instance passes").certainty(Certainty::Proven);
    }
    if check.tls_name.is_none() {
        return;
    }
    let message = "the check expects a name in a certificate, and not every instance is spoken to over TLS";
    match found.file.upstream.as_ref().and_then(|upstream| upstream.tls.as_ref()) {
        Some(Encryption::On(_)) => {}
        Some(Encryption::Off) => {
            found.report(at, message, "no instance passes: `upstream: {tls: false}`").certainty(Certainty::Proven);
        }
        None => {
            let plain = found.instances().iter().filter(|instance| !says_https(instance)).count();
            if plain > 0 {
                let label = format!("{plain} of {} never pass: they lack `scheme=https`", found.instances().len());
                found.report(at, message, label).certainty(Certainty::Proven).help("write `upstream: {tls: ...}`");
            }
        }
    }
}

pub(super) fn always_passes(found: &mut Findings<'_>) {
    let Some(check) = &found.file.check else { return };
    let at = found.key("check");
    if let Probe::Http { statuses, .. } = &check.probe
        && let Some((low, high)) = statuses.iter().find(|(_, high)| *high >= 500)
    {
        let range = if low == high { low.to_string() } else { format!("{low}-{high}") };
        let message = format!("the check accepts the status {range}");
        found.report(at, message, "an instance that answers with its own failure passes");
    }
    let (Probe::Http { body: text, .. } | Probe::Tcp { expect: text, .. }) = &check.probe else { return };
    if text.as_ref().is_some_and(String::is_empty) {
        found.report(at, "the check expects an empty text", "every answer has it").certainty(Certainty::Proven);
    }
}

pub(super) fn readmits_blindly(found: &mut Findings<'_>) {
    let blind = |check: &&Check| check.check_readmits && check.probe == Check::CONNECTS && check.tls_name.is_none();
    if found.file.check.as_ref().filter(blind).is_some() {
        let message = "`check_readmits` with a check that asks only for a connection";
        let label = "an instance that was ejected for its answers comes back as long as its port is open";
        found.report(found.key("check"), message, label);
    }
}

pub(super) fn comparison_of_few(found: &mut Findings<'_>) {
    let file = found.file;
    let Some(eject) = file.eject.as_ref().filter(|_| !found.instances().is_empty()) else { return };
    let used = (0..file.pools.len()).filter(|at| used(file).any(|name| *name == *file.pools[*at].name.value));
    let Some(largest) = used.map(|at| found.members(at).len()).max() else { return };
    for (key, is_on, needed) in
        [("stdev_factor", eject.stdev_factor > 0, STDEV_ENDPOINTS), ("latency_factor", eject.latency_factor > 0, 2)]
    {
        if is_on && largest < needed {
            let message =
                format!("`{key}` has no effect: it compares {needed} instances of a pool, and no pool has them");
            let label = format!("the largest pool has {largest}");
            found.report(found.key("eject"), message, label).certainty(Certainty::Proven);
        }
    }
}
