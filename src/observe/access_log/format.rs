//! A record as a line of JSON. Runs on the writer's thread.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;

use serde::Serialize;

use crate::engine::label::Labels;
use crate::observe::timestamp;

use super::record::Record;

/// Makes lines; holds the redaction list and its key.
#[derive(Debug)]
pub struct Formatter {
    redact: Vec<String>,
    /// SipHash with a key of this process: equal values are equal in one log, and cannot be looked up.
    key: RandomState,
}

#[derive(Serialize)]
struct Line<'r> {
    ts: String,
    method: &'r str,
    host: &'r str,
    path: String,
    headers: BTreeMap<&'r str, OneOrMany>,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    scheme: &'static str,
    protocol: &'static str,
    sni: Option<&'r str>,
    san: &'r [String],
    generation: u64,
    draw: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    result: Outcome<'r>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<&'r str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize)]
struct Outcome<'r> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'static str,
    service: Option<&'r str>,
    rule: Option<&'r str>,
    pool: Option<&'r str>,
    instance: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'r Labels>,
    attempts: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rerouted: bool,
    bytes_in: u64,
    bytes_out: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u64>,
}

impl Formatter {
    /// A formatter that hashes these fields.
    pub fn new(redact: &[String]) -> Self {
        let lower = |field: &String| match field.split_once('.') {
            Some(("header", name)) => format!("header.{}", name.to_ascii_lowercase()),
            _ => field.clone(),
        };
        Self { redact: redact.iter().map(lower).collect(), key: RandomState::new() }
    }

    /// Appends the record's line.
    pub fn line(&mut self, record: &Record, out: &mut Vec<u8>) {
        let mut redacted = Vec::new();
        let line = Line {
            ts: time(record),
            method: record.method.as_str(),
            host: &record.host,
            path: self.path(&record.target, &mut redacted),
            headers: self.headers(record, &mut redacted),
            client: self.client(record, &mut redacted),
            peer: self.peer(record),
            scheme: record.scheme,
            protocol: record.protocol,
            sni: record.sni.as_deref(),
            san: &record.san,
            generation: record.generation,
            draw: format!("{:016x}", record.draw.0),
            request_id: record.request_id.as_ref().map(|id| text(id.as_bytes())),
            result: outcome(record),
            redacted,
        };
        let start = out.len();
        if let Err(error) = serde_json::to_writer(&mut *out, &line) {
            out.truncate(start);
            tracing::error!(%error, "an access log line could not be made");
            return;
        }
        out.push(b'\n');
    }

    fn headers<'r>(&'r self, record: &'r Record, redacted: &mut Vec<&'r str>) -> BTreeMap<&'r str, OneOrMany> {
        let mut headers: BTreeMap<&str, OneOrMany> = BTreeMap::new();
        for (name, value) in &record.copied.headers {
            let value = self.value(&format!("header.{name}"), text(value.as_bytes()), redacted);
            match headers.get_mut(name.as_str()) {
                None => drop(headers.insert(name.as_str(), OneOrMany::One(value))),
                Some(OneOrMany::Many(values)) => values.push(value),
                Some(first) => {
                    if let OneOrMany::One(one) = first {
                        *first = OneOrMany::Many(vec![std::mem::take(one), value]);
                    }
                }
            }
        }
        let cookies: Vec<String> = record
            .copied
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={}", self.value(&format!("cookie.{name}"), text(value), redacted)))
            .collect();
        if !cookies.is_empty() {
            headers.insert("cookie", OneOrMany::One(cookies.join("; ")));
        }
        headers
    }

    fn path<'r>(&'r self, target: &str, redacted: &mut Vec<&'r str>) -> String {
        match target.split_once('?') {
            Some((path, query)) => format!("{path}?{}", self.value("query", query.to_owned(), redacted)),
            None => target.to_owned(),
        }
    }

    /// The address; redacted, one of the documentation block that stands for it, so that the line can still be read.
    fn client<'r>(&'r self, record: &Record, redacted: &mut Vec<&'r str>) -> String {
        let Some(listed) = self.redact.iter().find(|listed| *listed == "client") else {
            return record.client.to_string();
        };
        redacted.push(listed);
        let hash = self.key.hash_one(record.client);
        Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(hash)).to_string()
    }

    /// Who sent the request, where that is not the client. It would tell something of a redacted client.
    fn peer(&self, record: &Record) -> Option<String> {
        let told = record.peer != record.client && !self.redact.iter().any(|listed| listed == "client");
        told.then(|| record.peer.to_string())
    }

    /// The value, or its keyed hash where the field is to be redacted.
    fn value<'r>(&'r self, field: &str, value: String, redacted: &mut Vec<&'r str>) -> String {
        let Some(listed) = self.redact.iter().find(|listed| *listed == field) else { return value };
        if !redacted.contains(&listed.as_str()) {
            redacted.push(listed);
        }
        format!("hash-{:016x}", self.key.hash_one(value))
    }
}

fn outcome(record: &Record) -> Outcome<'_> {
    let (place, answer) = (&record.place, &record.answer);
    Outcome {
        status: answer.status,
        grpc_status: answer.grpc_status,
        detail: answer.detail,
        service: place.service.as_deref(),
        rule: place.rule.as_deref(),
        pool: place.pool.as_deref(),
        instance: place.instance.as_ref().map(|instance| &*instance.id),
        labels: place.instance.as_ref().map(|instance| &instance.labels),
        attempts: answer.attempts,
        rerouted: answer.rerouted,
        bytes_in: answer.bytes_in,
        bytes_out: answer.bytes_out,
        duration_us: answer.durations.total_us,
        connect_us: answer.durations.connect_us,
        first_byte_us: answer.durations.first_byte_us,
    }
}

fn time(record: &Record) -> String {
    let mut out = String::with_capacity(24);
    timestamp::write(record.at, &mut out);
    out
}

/// Header bytes are Latin-1 to HTTP; what is no UTF-8 is shown with replacement characters.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
