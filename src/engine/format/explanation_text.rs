//! An explanation as a person reads it in ten seconds: the result first, then why, in the order of the decision.

use std::fmt::{self, Display, Formatter, Write as _};

use super::explanation::{EditKind, Explanation, FailedTerm, HashNote, Kind, PoolNote, RuleNote, Verdict};
use crate::engine::policy::Balance;

/// Candidates of a level that are named.
const MOST_NAMED: usize = 8;

impl Explanation {
    /// As text, a line feed at the end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let request = &self.request;
        writeln!(out, "{} {}://{}{}", request.method, request.scheme, request.host, request.path)?;
        writeln!(out, "→ {}", self.headline())?;
        let Some(file) = &self.file else {
            return writeln!(out, "\nno file claims this host and path");
        };
        let host = file.claim.host.as_deref().unwrap_or("any host");
        writeln!(out, "\nfile     {} for service {} ({host}, {})", file.name, file.service, file.claim.path)?;
        if file.catalog_index.is_none() {
            writeln!(out, "         the catalog does not know this service")?;
        }
        for label in &self.labels {
            writeln!(out, "label    {} = {}", label.name, label.value.as_deref().unwrap_or("(missing)"))?;
        }
        self.write_rules(out)?;
        self.write_split(out)?;
        for (at, step) in self.resort.iter().enumerate() {
            let head = if at == 0 { "resort" } else { "" };
            let mark = if step.taken { "→" } else { "·" };
            let what = step.pool.as_deref().map_or(step.step.clone(), |pool| format!("{} {pool}", step.step));
            writeln!(out, "{head:<9}{mark} {what}: {}", step.why)?;
        }
        self.pools.iter().try_for_each(|pool| write_pool(out, pool))?;
        self.write_pick(out)?;
        self.write_message(out)?;
        self.write_policies(out)?;
        writeln!(out, "table    generation {}, draw {}", self.generation, self.draw)
    }

    fn headline(&self) -> String {
        let result = &self.result;
        let mut line = match result.outcome {
            Kind::Routed => format!(
                "{} {} (pool {}, level {})",
                result.instance.as_deref().unwrap_or("?"),
                result.address.as_deref().unwrap_or("?"),
                result.pool.as_deref().unwrap_or("?"),
                result.level.unwrap_or(0)
            ),
            other => {
                let word = format!("{other:?}").to_lowercase();
                let status = result.status.map_or(String::new(), |status| format!(" {status}"));
                let detail = result.detail.as_ref().map_or(String::new(), |detail| format!(" {detail}"));
                format!("{word}{status}{detail}")
            }
        };
        if let Some(rule) = &result.rule {
            let _ = write!(line, ", rule {rule}");
        }
        if let Some(arm) = &result.arm {
            let _ = write!(line, ", arm {arm}{}", if result.rerouted { " (rerouted)" } else { "" });
        }
        line
    }

    fn write_rules(&self, out: &mut String) -> fmt::Result {
        for (at, rule) in self.rules.iter().enumerate() {
            let head = if at == 0 { "rules" } else { "" };
            writeln!(out, "{head:<9}{}", RuleLine(rule))?;
            for other in rule.failed.iter().skip(1) {
                writeln!(out, "{:<11}nor {}", "", Failed(other))?;
            }
        }
        Ok(())
    }

    fn write_split(&self, out: &mut String) -> fmt::Result {
        let Some(split) = &self.split else { return Ok(()) };
        let arms: Vec<String> = split.arms.iter().map(|arm| format!("{} {}", arm.name, arm.share)).collect();
        let value = split.value.as_ref().map_or(String::new(), |value| format!(" = \"{value}\""));
        let epoch = if split.epoch > 0 { format!(", epoch {}", split.epoch) } else { String::new() };
        writeln!(out, "split    {}", arms.join(" | "))?;
        writeln!(
            out,
            "         by {}{value}, salt {}{epoch}: hash {} falls at {} → {}",
            split.key,
            split.salt,
            split.hash,
            split.point,
            split.order.join(", then ")
        )
    }

    fn write_pick(&self, out: &mut String) -> fmt::Result {
        let Some(pick) = &self.pick else { return Ok(()) };
        write!(out, "pick     {} from {} at level {}", pick.instance, pick.pool, pick.level)?;
        if let Some(two) = &pick.compared {
            let [a, b] = two.in_flight;
            match two.costs {
                None => write!(out, ": {} has {a} in flight, {} has {b}", two.a, two.b)?,
                Some([us_a, us_b]) => {
                    write!(out, ": {} has {a} in flight at {us_a} us, {} has {b} at {us_b} us", two.a, two.b)?;
                }
            }
        }
        if pick.panic {
            write!(out, ": panic, whatever its health")?;
        }
        if pick.turns {
            write!(out, ": drawn by weight here, in the proxy it is who has the turn at the worker")?;
        }
        if !pick.passed_over.is_empty() {
            let all: Vec<String> = pick.passed_over.iter().map(|one| format!("{} ({})", one.id, one.why)).collect();
            write!(out, "; passed over {}", all.join(", "))?;
        }
        writeln!(out)?;
        if let Some(key) = &pick.key {
            writeln!(out, "         {}", KeyLine(key))?;
        }
        match &self.result.set_cookie {
            Some(cookie) => writeln!(out, "cookie   {cookie}"),
            None => Ok(()),
        }
    }

    fn write_message(&self, out: &mut String) -> fmt::Result {
        let Some(message) = &self.message else { return Ok(()) };
        if message.target.is_some() || message.host.is_some() {
            let host = message.host.as_deref().unwrap_or(&self.request.host);
            let target = message.target.as_deref().unwrap_or(&self.request.path);
            writeln!(out, "rewrite  {target}, Host {host}")?;
        }
        if let Some(mirror) = &message.mirror {
            let whether = if mirror.copied { "this request is copied" } else { "not this request" };
            writeln!(out, "mirror   {} of requests to {}: {whether}", Percent(mirror.share), mirror.pool)?;
        }
        for one in &message.carried {
            let header = one.header.as_ref().map(|name| format!("{name}: {}", one.value));
            let baggage = one.baggage.as_ref().map(|member| format!("baggage {member}"));
            let both: Vec<String> = header.into_iter().chain(baggage).collect();
            writeln!(out, "carried  {}", both.join(", "))?;
        }
        for (head, edits) in [("request", &message.request), ("answer", &message.response)] {
            for edit in edits {
                let (name, value) = (&edit.name, edit.value.as_deref().unwrap_or(""));
                match edit.kind {
                    EditKind::Remove => writeln!(out, "{head:<9}remove {name}"),
                    EditKind::Set => writeln!(out, "{head:<9}set {name}: {value}"),
                    EditKind::Add => writeln!(out, "{head:<9}add {name}: {value}"),
                }?;
            }
        }
        Ok(())
    }

    fn write_policies(&self, out: &mut String) -> fmt::Result {
        let Some(policies) = &self.policies else { return Ok(()) };
        let (time, retry, eject) = (&policies.timeout, &policies.retry, &policies.eject);
        let mut on: Vec<String> = Vec::new();
        for (set, word) in [(retry.connect, "connect"), (retry.reset, "reset"), (retry.timeout, "timeout")] {
            on.extend(set.then(|| word.to_owned()));
        }
        on.extend(retry.statuses.iter().map(u16::to_string));
        let names = crate::engine::grpc::NAMES.iter().enumerate().filter(|(status, _)| retry.grpc >> status & 1 == 1);
        on.extend(names.map(|(_, name)| (*name).to_owned()));
        writeln!(
            out,
            "limits   connect {}, first_byte {}, idle {}, total {}, stream_idle {}, max_stream_age {}",
            Time(time.connect),
            Time(time.first_byte),
            Time(time.idle),
            Time(time.total),
            Time(time.stream_idle),
            Time(time.max_stream_age)
        )?;
        let per_try = if retry.per_try > 0 { format!(", {} each", Time(retry.per_try)) } else { String::new() };
        let budget = Percent(retry.budget);
        writeln!(out, "retry    {} attempts{per_try} on {}; budget {budget}", retry.attempts, on.join(", "))?;
        policies.limits.write(out)?;
        writeln!(
            out,
            "eject    after {} failures in a row, or below {} of {}; for {} to {}{}",
            eject.consecutive_5xx,
            Percent(eject.success_rate),
            Time(eject.window),
            Time(eject.base_ejection_time),
            Time(eject.max_ejection_time),
            if eject.enforce { "" } else { " (only reported)" }
        )
    }
}

fn write_pool(out: &mut String, pool: &PoolNote) -> fmt::Result {
    let select = pool.select.as_deref().unwrap_or("every instance");
    let variant = if pool.variant.is_empty() { String::new() } else { format!(" [{}]", pool.variant.join(", ")) };
    let backed = if pool.backed { ", backed" } else { "" };
    writeln!(out, "pool     {}{variant}: {select}", pool.name)?;
    let balance = match &pool.balance {
        Balance::Hash(key) => format!("hash({key})"),
        other => other.word().into(),
    };
    let (catalog, routable, min) = (pool.catalog, pool.routable, pool.min);
    writeln!(out, "         {catalog} in the catalog, {routable} routable, wants {min}{backed}; {balance}")?;
    for level in &pool.levels {
        let named: Vec<String> = level
            .candidates
            .iter()
            .take(MOST_NAMED)
            .map(|one| {
                let weight = if one.weight == 1 { String::new() } else { format!(" ×{}", one.weight) };
                let kept = if one.eject_refused { " (ejected, kept)" } else { "" };
                let cost = one.cost.map_or(String::new(), |us| format!(" {us} us"));
                let slow = one.slow_start.map_or(String::new(), |chance| format!(" (slow start {})", Percent(chance)));
                format!("{}{weight}{cost}{kept}{slow}", one.id)
            })
            .collect();
        let more = level.candidates.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = if named.is_empty() { "nobody routable".into() } else { named.join(", ") };
        let waits = level.waits.map_or(String::new(), |ms| format!(", more in {} (failback)", Time(ms)));
        writeln!(out, "         level {} takes {}%{waits}: {named}{more}", level.rank, level.load)?;
    }
    for left in &pool.left_out {
        writeln!(out, "         left out: {} ({})", left.id, left.why)?;
    }
    Ok(())
}

struct KeyLine<'k>(&'k HashNote);

impl Display for KeyLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let HashNote { field, value, hash, entry, again } = self.0;
        let (Some(value), Some(hash)) = (value, hash) else {
            return write!(f, "the request has no {field}: as least");
        };
        write!(f, "by {field} = \"{value}\": hash {hash}")?;
        if let Some((entry, size)) = entry {
            write!(f, " falls at {entry} of {size}")?;
        }
        match again {
            0 => Ok(()),
            1..=8 => write!(f, ", hashed again {again} times"),
            _ => write!(f, ", then the next in the table"),
        }
    }
}

struct RuleLine<'r>(&'r RuleNote);

impl Display for RuleLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        match rule.verdict {
            Verdict::Matched => {
                write!(f, "✓ {} (line {}): {}", rule.name, rule.line, rule.when.as_deref().unwrap_or("always"))
            }
            Verdict::NotTried => write!(f, "  {} (line {}): not tried", rule.name, rule.line),
            Verdict::Failed => match rule.failed.first() {
                Some(term) => write!(f, "✗ {} (line {}): {}", rule.name, rule.line, Failed(term)),
                None => write!(f, "✗ {} (line {})", rule.name, rule.line),
            },
        }
    }
}

struct Failed<'t>(&'t FailedTerm);

impl Display for Failed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let term = self.0;
        write!(f, "{}", term.text)?;
        match (&term.field, &term.actual) {
            (Some(_), Some(actual)) => write!(f, " — it is \"{actual}\"")?,
            (Some(_), None) => write!(f, " — it is missing")?,
            (None, Some(actual)) => write!(f, " — {actual}")?,
            (None, None) => {}
        }
        match &term.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}

/// Milliseconds with a unit.
struct Time(u64);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("none"),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// Parts per million as percent.
struct Percent(u32);

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0'))
    }
}
