//! One request of one watch: limiters, the exchange, and what a failure means.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::api::{self, Head};
use super::subscription::{Subscription, luck};
use crate::catalog::http::Reply;
use crate::catalog::status::{SourceFigures, unix_seconds};
use crate::catalog::watch::backoff::{Backoff, Failure};
use crate::catalog::watch::limiter::Limiter;
use crate::engine::time::Draw;

/// A watch's own limiter, back-off and luck.
pub(super) struct Asker {
    sub: Arc<Subscription>,
    what: String,
    limiter: Limiter,
    backoff: Backoff,
    /// For jitter of any kind.
    pub(super) draw: Draw,
}

/// A request that brought nothing that may be used.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// For people. Holds no token.
    pub(super) message: String,
}

/// Between two warnings of a source that fails, recovers and fails.
const QUIET: Duration = Duration::from_secs(10);

impl Asker {
    pub(super) fn new(sub: &Arc<Subscription>, what: String) -> Self {
        let limiter = Limiter::new(sub.settings.burst, 1, sub.board.now());
        Self { sub: Arc::clone(sub), what, limiter, backoff: Backoff::default(), draw: luck() }
    }

    /// Asks, within the limits. A blocking query may take `blocked` longer than one that answers at once.
    pub(super) async fn ask(&mut self, path: &str, blocked: Duration) -> Result<(Head, Reply), Failed> {
        while let Err(wait) = self.limiter.take(self.sub.board.now()) {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.sub.permit().await;
        let head_within = blocked + blocked / 16 + self.sub.settings.head_timeout;
        self.sub.figures.with(|figures| figures.counters.requests += 1);
        let outcome = if blocked.is_zero() {
            self.sub.client.get(path, head_within).await
        } else {
            self.sub.client.block(path, head_within).await
        };
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return Err(Failed { failure: error.failure(), message: error.to_string() }),
        };
        self.sub.figures.with(|figures| figures.counters.bytes += reply.wire_bytes as u64);
        let failure = match reply.status {
            StatusCode::OK if api::is_json(&reply.headers) => return Ok((api::head(&reply.headers), reply)),
            StatusCode::OK => {
                return Err(Failed { failure: Failure::Ordinary, message: "the answer is not JSON".to_owned() });
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Failure::Congested(reply.retry_after()),
            StatusCode::FORBIDDEN => Failure::Forbidden,
            StatusCode::BAD_REQUEST => Failure::Configuration,
            _ => Failure::Ordinary,
        };
        Err(Failed { failure, message: api::complaint(&reply) })
    }

    /// The answer was used.
    pub(super) fn worked(&mut self) {
        self.backoff.reset();
        let agent = self.sub.client.address().to_string();
        let was_down = self.sub.figures.with(|figures| {
            let was_down = !figures.connected && figures.last_error.is_some();
            (figures.connected, figures.backoff_ms) = (true, 0);
            figures.last_good_at = Some(Instant::now());
            figures.agent.clone_from(&agent);
            self.environment(figures);
            was_down
        });
        if was_down {
            tracing::info!(target: "pointsman::catalog", source = self.sub.name, agent,
                "the catalog answers again; losses since then are held until they are confirmed");
        }
    }

    /// Notes a failure and says how long to wait before the next try.
    pub(super) fn failed(&mut self, failed: &Failed) -> Duration {
        let wait = self.backoff.after(failed.failure, self.draw.fork(u64::from(self.backoff.failures())));
        self.draw.advance();
        let agent = self.sub.client.address().to_string();
        let loud = self.sub.figures.with(|figures| {
            let counters = &mut figures.counters;
            counters.failures += 1;
            match failed.failure {
                Failure::Congested(_) => counters.congested += 1,
                Failure::Forbidden => counters.forbidden += 1,
                _ if failed.message.starts_with('5') => counters.server_errors += 1,
                _ => {}
            }
            let recently = figures.last_error_at.is_some_and(|at| at.elapsed() < QUIET);
            let news = figures.last_failure != Some(failed.failure) || figures.connected;
            figures.connected = false;
            figures.last_error = Some(format!("{}: {}", self.what, failed.message));
            (figures.last_failure, figures.last_error_at) = (Some(failed.failure), Some(Instant::now()));
            figures.agent.clone_from(&agent);
            figures.backoff_ms = wait;
            self.environment(figures);
            news && !recently
        });
        let (source, what, error) = (&self.sub.name, &self.what, &failed.message);
        match (failed.failure, loud) {
            (Failure::Configuration, _) => tracing::error!(target: "pointsman::catalog", source, agent, what, error,
                "Consul refuses the question itself: check the catalog settings; the last good state stays in force"),
            (Failure::Forbidden, true) => tracing::error!(target: "pointsman::catalog", source, agent, what, error,
                "Consul refuses the token: the last good state stays in force; the token file is read again on every try"),
            (_, true) => tracing::warn!(target: "pointsman::catalog", source, agent, what, error,
                "the catalog cannot be read: the last good state stays in force; trying again"),
            (_, false) => {
                tracing::debug!(target: "pointsman::catalog", source, agent, what, error, wait, "still failing")
            }
        }
        Duration::from_millis(wait)
    }

    fn environment(&self, figures: &mut SourceFigures) {
        figures.connections = self.sub.client.connections();
        figures.token_mtime = self.sub.client.token_changed().map(unix_seconds);
    }
}
