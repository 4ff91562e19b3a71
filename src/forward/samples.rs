//! What a worker offers to the guard of rule changes: at most one request in 10 ms, without its secrets.

use std::cell::Cell;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::engine::expr::ast::Field;
use crate::engine::format::traffic::TrafficRequest;
use crate::engine::request::RequestView;
use crate::engine::route::RouterFile;
use crate::engine::time::Draw;
use crate::observe::recent::{Offers, Sample};

/// Microseconds between two samples of one worker: 100 a second.
const GAP_US: u64 = 10_000;

/// Header fields that are credentials by their name; dropped unless a rule in force reads them.
const SECRETS: [HeaderName; 6] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-csrf-token"),
];

/// One worker's side.
#[derive(Debug)]
pub struct Sampler {
    offers: Offers,
    worker: usize,
    /// No sample before this moment, in microseconds of the worker's clock.
    next: Cell<u64>,
}

impl Sampler {
    /// Samples of the worker with this index.
    #[must_use]
    pub fn new(offers: Offers, worker: usize) -> Self {
        Self { offers, worker, next: Cell::new(0) }
    }

    /// Offers the request of this peer, if it is time. `file`: the one that claims it.
    pub fn take(&self, now_us: u64, peer: IpAddr, request: &RequestView<'_>, file: Option<&RouterFile>, draw: Draw) {
        if now_us < self.next.get() {
            return;
        }
        self.next.set(now_us + GAP_US);
        let request = Box::new(TrafficRequest {
            method: request.method.clone(),
            scheme: request.scheme.to_owned(),
            host: request.host.to_owned(),
            path: request.path.to_owned(),
            query: request.query.map(str::to_owned),
            headers: without_secrets(request.headers, file),
            client: request.client,
            peer: Some(peer),
            sni: request.sni.map(str::to_owned),
            san: request.san.to_vec(),
            draw: Some(draw),
        });
        self.offers.offer(Sample { worker: self.worker, request });
    }
}

/// The fields without credentials; of cookies only those that the file reads.
fn without_secrets(headers: &HeaderMap, file: Option<&RouterFile>) -> HeaderMap {
    let slots = || file.into_iter().flat_map(|file| &file.fields.slots);
    let reads = |name: &HeaderName| slots().any(|slot| matches!(&slot.field, Field::Header(read) if read == name));
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if *name != COOKIE && (!SECRETS.contains(name) || reads(name)) {
            kept.append(name.clone(), value.clone());
        }
    }
    let known = |cookie: &[u8]| {
        file.is_some_and(|file| file.cookie.as_bytes() == cookie)
            || slots().any(|slot| matches!(&slot.field, Field::Cookie(read) if read.as_bytes() == cookie))
    };
    let mut cookies = Vec::new();
    for pair in headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')) {
        let pair = pair.trim_ascii();
        if pair.iter().position(|byte| *byte == b'=').is_some_and(|at| known(&pair[..at])) {
            cookies.extend_from_slice(if cookies.is_empty() { b"" } else { b"; " });
            cookies.extend_from_slice(pair);
        }
    }
    if let (false, Ok(cookies)) = (cookies.is_empty(), HeaderValue::from_bytes(&cookies)) {
        kept.insert(COOKIE, cookies);
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::Method;

    use std::net::Ipv4Addr;

    use super::*;
    use crate::engine::diagnostic::Source;
    use crate::engine::route::Router;
    use crate::engine::rules::parse_files;
    use crate::observe::recent;

    const RULES: &str = "service: web\npools: {a: version == 1}\nrules:\n  - {name: r, when: \"cookie.uid == '7' and header.x-api-key == 'k'\", to: a}\n";

    fn request<'r>(method: &'r Method, headers: &'r HeaderMap) -> RequestView<'r> {
        RequestView {
            method,
            scheme: "http",
            host: "web",
            path: "/",
            query: Some("x=1"),
            headers,
            client: [127, 0, 0, 1].into(),
            sni: None,
            san: &[],
            trusted: true,
        }
    }

    #[test]
    fn secrets_are_dropped_unless_a_rule_reads_them_and_samples_keep_their_distance() {
        let (set, _) = parse_files(&[Source::new("web.yaml", RULES)]);
        let router = Router::compile(&set).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic c2VjcmV0"),
            ("x-api-key", "k"),
            ("x-user-group", "test"),
            ("cookie", "session=secret; uid=7"),
            ("cookie", "other=1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let (offers, recent) = recent::channel(1);
        let sampler = Sampler::new(offers, 0);
        let (method, file) = (Method::GET, Some(&*router.files[0]));
        for now in [0, 9_999, 10_000, 15_000] {
            sampler.take(now, Ipv4Addr::LOCALHOST.into(), &request(&method, &headers), file, Draw(1));
        }
        sampler.take(20_000, Ipv4Addr::LOCALHOST.into(), &request(&method, &headers), None, Draw(1));
        let kept = recent.requests();
        assert_eq!(kept.len(), 3);
        let shown = |at: usize| {
            let mut fields: Vec<_> =
                kept[at].headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
            fields.sort();
            fields
        };
        assert_eq!(shown(0), ["cookie: uid=7", "x-api-key: k", "x-user-group: test"]);
        assert_eq!(shown(2), ["x-user-group: test"], "without a file nothing is known to be read");
    }
}
