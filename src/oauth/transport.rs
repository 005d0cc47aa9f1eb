//! The one way to a token endpoint.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::{ANSWER_BYTES, AppFault, Failure, NotSent, Unreadable};
use crate::{
    dial::{self, Dialer},
    fetch::{self, Question, Unanswered, Url},
};

/// What tells the time; tests have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Carries requests to token endpoints: one connection each, to an address that the guard has checked, over TLS that is
/// verified like a provider's, for at most `limit` in all. Cloning is cheap.
#[derive(Clone)]
pub struct Transport {
    dialer: Dialer,
    tls: Arc<ClientConfig>,
    limit: Duration,
    clock: Clock,
}

/// An answer, and when it came.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) at: Timestamp,
}

impl Transport {
    /// A transport that gives up after `limit`, connecting included: keep it shorter than a lease. `tls` must offer
    /// HTTP/1.1 and nothing else ([`crate::tls::Alpn::H1`]).
    #[must_use]
    pub fn new(dialer: Dialer, tls: Arc<ClientConfig>, limit: Duration) -> Self {
        Self { dialer, tls, limit, clock: Arc::new(Timestamp::now) }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Asks once.
    pub(super) async fn send(&self, url: &Url, question: Question) -> Result<Received, Failure> {
        let deadline = Instant::now() + self.limit;
        let late = |_| Failure::NotSent(NotSent::Timeout);
        let asked = async {
            if url.is_cleartext() {
                let tcp = timeout_at(deadline, self.dialer.tcp(url.target())).await.map_err(late)?;
                let exchange =
                    fetch::exchange(tcp.map_err(|error| undialled(&error))?, url, question, ANSWER_BYTES);
                timeout_at(deadline, exchange).await.map_err(|_| Failure::Ambiguous)
            } else {
                let tls = self.dialer.tls(url.target(), Arc::clone(&self.tls));
                let tls = timeout_at(deadline, tls).await.map_err(late)?;
                let exchange =
                    fetch::exchange(tls.map_err(|error| undialled(&error))?, url, question, ANSWER_BYTES);
                timeout_at(deadline, exchange).await.map_err(|_| Failure::Ambiguous)
            }
        };
        let answer = Box::pin(asked).await?.map_err(|error| unanswered(&error))?;
        Ok(Received {
            status: answer.status.as_u16(),
            headers: answer.headers,
            body: answer.body,
            at: self.now(),
        })
    }
}

fn undialled(error: &dial::Error) -> Failure {
    Failure::NotSent(match error {
        dial::Error::Address(_) => NotSent::Address,
        dial::Error::Resolve(_) | dial::Error::Connect(_) => NotSent::Connect,
        dial::Error::Tls(_) => NotSent::Tls,
        dial::Error::Timeout => NotSent::Timeout,
    })
}

fn unanswered(error: &Unanswered) -> Failure {
    match error {
        Unanswered::NotSent => Failure::NotSent(NotSent::Connect),
        Unanswered::TooLong { status, .. } if status.is_success() => Failure::Unreadable(Unreadable::TooLong),
        Unanswered::TooLong { status, .. } if status.is_redirection() => Failure::App(AppFault::Redirect),
        Unanswered::Broken(_) | Unanswered::TooLong { status: StatusCode::GATEWAY_TIMEOUT, .. } => {
            Failure::Ambiguous
        }
        Unanswered::TooLong { .. } => Failure::Transient { retry_after: None },
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("limit", &self.limit).finish_non_exhaustive()
    }
}
