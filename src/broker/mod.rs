//! For sidecars that hold no key and no refresh token: an account's live credential, and word of every change.
//!
//! A sidecar proves which workload it is by a token of the cluster's or of its trust domain's, with each request. What it
//! may have is decided here, by the rules that the broker reads, whatever the sidecar believes: its binding must let it
//! speak for the subject, and the subject's own requests must go with the account. So a stolen sidecar gets what its
//! workload's agents may use, and learns of nobody else.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/credential` | how an account stands and, if that is asked, its secrets: [`wire`](crate::credential::wire) |
//! | `GET /v1/watch` | a line for each change, until the token ends, the bindings do, or the broker stops |
//! | `GET /v1/policy` | the rules that the workload may see, for its own proxy to decide by |

mod caller;
mod config;
mod credential;
mod metrics;
mod news;
mod policy;
mod record;
mod refusal;
mod room;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod watch;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, sync::broadcast};

pub use self::{config::Config, metrics::Metrics};
use self::{news::News, policy::Revisions, room::Rooms};
use crate::{
    audit::Audit, credential::Local, drain::Drain, id::AccountKey, identity::Workloads, ruleset::Rules,
    tls::Served, vault::Vault,
};

/// What a broker is made of.
pub struct Parts {
    /// Who asks.
    pub workloads: Workloads,
    /// May they.
    pub rules: Rules,
    /// With what.
    pub vault: Vault,
    /// The same, with tokens that are kept alive.
    pub local: Local,
    /// What happened.
    pub audit: Audit,
    /// Where the admin listener is, if nothing else is configured for people who connect accounts.
    pub admin: SocketAddr,
    /// What is measured.
    pub metrics: Metrics,
    /// What every task goes through.
    pub drain: Drain,
}

/// Serves sidecars. Cloning is cheap.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    parts: Parts,
    config: Config,
    news: News,
    revisions: Revisions,
    rooms: Rooms,
}

/// Why the broker did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
    /// Nobody could prove who they are.
    #[error(
        "broker.issuers is empty, so that no workload could prove itself: name the cluster's issuer or a SPIFFE trust domain (docs/broker.md)"
    )]
    NoIssuer,
    /// An issuer of workload tokens.
    #[error("broker.issuers: {0}")]
    Issuer(#[from] crate::identity::IssuerError),
    /// The listener.
    #[error("cannot listen on {address} (broker.listen); is another keybearer running, or the port taken?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The listener, bound, and its certificate, read.
pub struct Door {
    listener: TcpListener,
    certificate: Arc<Served>,
    /// Where it is.
    pub address: SocketAddr,
}

impl Door {
    /// Reads the certificate and binds the listener.
    ///
    /// # Errors
    /// [`Error::Tls`], [`Error::Bind`], [`Error::NoIssuer`].
    pub async fn open(config: &Config) -> Result<Self, Error> {
        if config.issuers.is_empty() {
            return Err(Error::NoIssuer);
        }
        let certificate = Served::open(config.certificate.clone(), config.key.clone())?;
        let bind = |source| Error::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, certificate, address })
    }
}

impl Broker {
    /// A broker that serves nobody yet.
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Self {
        let rooms = Rooms::new(&config);
        Self(Arc::new(Inner { parts, config, news: News::default(), revisions: Revisions::default(), rooms }))
    }

    /// Serves sidecars until the drain begins. `replaced` are the accounts whose minted tokens are replaced here.
    pub fn serve(&self, door: Door, replaced: broadcast::Receiver<AccountKey>) {
        let drain = &self.0.parts.drain;
        drain.spawn(self.clone().follow(replaced));
        drain.spawn(server::accept(door, self.clone()));
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }
}
