//! One catalog's client: several addresses, one in use; a token; a budget of connections; deadlines on everything.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;

use super::connect::{Dialler, TlsSettings};
use super::pool::{Lease, Pool};
use super::{Address, HttpError, Token, body};

/// How to talk to a catalog.
#[derive(Debug)]
pub struct Settings {
    /// Never empty. The first one is used until it fails.
    pub addresses: Vec<Address>,
    /// The token.
    pub token: Option<Token>,
    /// An `Authorization` value for a proxy in front of the catalog.
    pub authorization: Option<HeaderValue>,
    /// TLS.
    pub tls: TlsSettings,
    /// Connections to one address at most.
    pub max_connections: usize,
    /// Time for connecting and the handshake, and for room in the budget.
    pub connect_timeout: Duration,
    /// Time between parts of a body.
    pub body_idle: Duration,
    /// Bytes of a body, as sent and inflated.
    pub max_body: usize,
    /// Transport errors in a row after which the next address is tried.
    pub move_after: u32,
    /// Whether answers may be compressed; `None`: not on loopback or a socket.
    pub gzip: Option<bool>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, inflated.
    pub body: Bytes,
    /// Its size as sent.
    pub wire_bytes: usize,
    /// [`Client::epoch`] when the request was sent.
    pub epoch: u64,
}

/// A client. Shared by all watches of a catalog; a second one with a small budget serves control calls, so that a beat
/// never waits behind a watch.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    pools: Vec<Pool>,
    dialler: Dialler,
    current: AtomicUsize,
    errors: AtomicU32,
    epoch: AtomicU64,
}

impl Client {
    /// A client; connects when it is first asked.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let pools = settings.addresses.iter().map(|one| Pool::new(one.clone(), settings.max_connections)).collect();
        let dialler = Dialler::new(settings.tls.clone());
        let (current, errors, epoch) = Default::default();
        Self { settings, pools, dialler, current, errors, epoch }
    }

    /// The address in use.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.pool().address()
    }

    /// Grows when another address or another token is used: what an index meant before means nothing then.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Connections open to the address in use.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pool().open()
    }

    /// Queries that may be blocked at once on the address in use, with this many connections left for others.
    #[must_use]
    pub fn blockable(&self, spare: usize) -> usize {
        self.pool().blockable(spare)
    }

    /// The token's file, when there is one, was last changed then.
    #[must_use]
    pub fn token_changed(&self) -> Option<std::time::SystemTime> {
        self.settings.token.as_ref().and_then(Token::changed)
    }

    /// A GET. `head_within` bounds the wait for the head after the connection is there.
    ///
    /// # Errors
    /// Everything but an answer read to its end. Statuses are answers.
    pub async fn get(&self, path_and_query: &str, head_within: Duration) -> Result<Reply, HttpError> {
        self.send_once(&Method::GET, path_and_query, &Bytes::new(), head_within, true).await
    }

    /// A blocking query: as [`Client::get`], but never repeated by itself on another connection. One that ended without an
    /// answer may mean a catalog that knows nothing of the index any more, so the caller has to ask afresh.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn block(&self, path_and_query: &str, head_within: Duration) -> Result<Reply, HttpError> {
        self.send_once(&Method::GET, path_and_query, &Bytes::new(), head_within, false).await
    }

    /// Any request with a body in memory.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        payload: Bytes,
        head_within: Duration,
    ) -> Result<Reply, HttpError> {
        self.send_once(&method, path_and_query, &payload, head_within, false).await
    }

    async fn send_once(
        &self,
        method: &Method,
        path_and_query: &str,
        payload: &Bytes,
        head_within: Duration,
        repeat: bool,
    ) -> Result<Reply, HttpError> {
        if self.settings.token.as_ref().is_some_and(|token| token.look(false)) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        let (epoch, at) = (self.epoch(), self.current.load(Ordering::Acquire));
        let result = self.exchange(&self.pools[at], method, path_and_query, payload, head_within, repeat).await;
        match &result {
            Ok((status, ..)) => {
                if self.current.load(Ordering::Acquire) == at {
                    self.errors.store(0, Ordering::Release);
                }
                if *status == StatusCode::FORBIDDEN
                    && self.settings.token.as_ref().is_some_and(|token| token.look(true))
                {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                }
                if matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                    self.pools[at].halve();
                }
            }
            Err(error) if error.of_transport() => self.count_error(at),
            Err(_) => {}
        }
        let (status, headers, body, wire_bytes) = result?;
        Ok(Reply { status, headers, body, wire_bytes, epoch })
    }

    async fn exchange(
        &self,
        pool: &Pool,
        method: &Method,
        path_and_query: &str,
        payload: &Bytes,
        head_within: Duration,
        mut repeat: bool,
    ) -> Result<(StatusCode, HeaderMap, Bytes, usize), HttpError> {
        let address = || pool.address().to_string();
        loop {
            let mut lease = match pool.lease(&self.dialler, self.settings.connect_timeout).await {
                Err(HttpError::Connect { source, .. }) if cut_off(&source) && others_live(pool).await => {
                    return Err(HttpError::Crowded { address: address() });
                }
                leased => leased?,
            };
            let fresh = lease.fresh;
            let request = self.request(&lease, pool.address(), method, path_and_query, payload)?;
            let sent = tokio::time::timeout(head_within, lease.send(request)).await;
            let response = match sent {
                Err(_) => return Err(HttpError::HeadTimeout { address: address(), within: head_within }),
                Ok(Ok(response)) => response,
                Ok(Err(error)) if !fresh && repeat && silent(&error) => {
                    repeat = false;
                    continue;
                }
                Ok(Err(error)) => {
                    // The driver's own words, where the request came too late to be told them.
                    tokio::task::yield_now().await;
                    let error = lease.ended().unwrap_or(error);
                    drop(lease);
                    return Err(broken(pool, fresh, error).await);
                }
            };
            let (parts, incoming) = response.into_parts();
            let sent = body::read(incoming, self.settings.body_idle, self.settings.max_body).await?;
            lease.give_back();
            let wire_bytes = sent.len();
            let inflated = self.inflate(&parts.headers, sent).await?;
            return Ok((parts.status, parts.headers, inflated, wire_bytes));
        }
    }

    fn request(
        &self,
        lease: &Lease,
        address: &Address,
        method: &Method,
        path_and_query: &str,
        payload: &Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let target = format!("{}{path_and_query}", address.prefix());
        let mut request = Request::builder().method(method.clone());
        if lease.multiplexed() {
            request = request.uri(format!("https://{}{target}", address.authority()));
        } else {
            request = request.uri(target).header(HOST, address.authority());
        }
        request = request.header(USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")));
        if self.settings.gzip.unwrap_or_else(|| !address.local()) {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        if let Some(value) = &self.settings.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some((name, value)) = self.settings.token.as_ref().and_then(Token::header) {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(payload.clone()))?)
    }

    async fn inflate(&self, headers: &HeaderMap, sent: Bytes) -> Result<Bytes, HttpError> {
        let coding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let cap = self.settings.max_body;
        if coding.is_none() || sent.len() < body::LARGE / 8 {
            return body::inflate(sent, coding.as_deref(), cap);
        }
        let work = tokio::task::spawn_blocking(move || body::inflate(sent, coding.as_deref(), cap));
        work.await
            .unwrap_or_else(|error| Err(HttpError::Coding { coding: "gzip".to_owned(), problem: error.to_string() }))
    }

    fn count_error(&self, at: usize) {
        if self.current.load(Ordering::Acquire) != at {
            // Left behind already; what still breaks there says nothing about the address in use.
            return;
        }
        let errors = self.errors.fetch_add(1, Ordering::AcqRel) + 1;
        if errors < self.settings.move_after.max(1) || self.pools.len() < 2 {
            return;
        }
        let next = (at + 1) % self.pools.len();
        if self.current.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.errors.store(0, Ordering::Release);
            self.epoch.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(target: "pointsman::catalog", from = %self.pools[at].address(), to = %self.pools[next].address(),
                "the catalog's address fails; moving to the next one");
        }
    }

    fn pool(&self) -> &Pool {
        &self.pools[self.current.load(Ordering::Acquire)]
    }
}

impl Reply {
    /// `Retry-After` in milliseconds; 0 when there is none that counts seconds.
    #[must_use]
    pub fn retry_after(&self) -> u64 {
        let seconds = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        seconds.unwrap_or(0).saturating_mul(1_000)
    }
}

/// A connection that ended without an answer. A fresh one that is closed at once while others live is how an agent
/// shows its limit.
async fn broken(pool: &Pool, fresh: bool, source: hyper::Error) -> HttpError {
    let address = pool.address().to_string();
    if fresh && silent(&source) && others_live(pool).await {
        return HttpError::Crowded { address };
    }
    HttpError::Broken { address, source }
}

/// Whether other connections outlive one that was closed without a word; then the budget is halved. When the agent
/// itself went away, they end within a moment too.
async fn others_live(pool: &Pool) -> bool {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let live = pool.open() > 0;
    if live {
        pool.halve();
    }
    live
}

/// Whether a connection ended before the first byte of an answer. One that ended with a TLS alert said why.
fn silent(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        if let Some(io) = next.downcast_ref::<std::io::Error>() {
            return cut_off(io);
        }
        cause = next.source();
    }
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

fn cut_off(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
}
