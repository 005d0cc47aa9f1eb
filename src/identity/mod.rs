//! Who asks: what a message says about itself, and how much of that is believed.
//!
//! The way of one request: [`claimed`] takes the claim out of the headers (or the tunnel's, or none),
//! [`Gate::identify`] turns it into an [`Identity`] by the configured [`Mode`], [`Gate::admit`] asks whether
//! this [`Workload`] may speak for it, [`Gate::pin`] keeps one chain to one tenant and user.
//!
//! Two claims that mean the same are the same bytes nearly always, so `identify` remembers what each claim
//! meant: the common request costs one lookup and no parsing.

mod bearer;
mod binding;
mod chain;
mod claim;
mod config;
mod credentials;
mod dictionary;
#[cfg(test)]
pub(crate) mod fixture;
mod gate;
mod issuer;
mod key_set;
mod keys;
mod signed;
mod signers;
mod token;
mod workload;
mod workloads;

use std::borrow::Cow;

pub use self::{
    bearer::bearer,
    binding::{BindingSpec, Bindings, Names},
    chain::Pinned,
    claim::{AGENT_IDENTITY, Claim, claimed},
    config::{Config, ConfigError, DefaultIdentity, JwksSource, Mode},
    gate::Gate,
    issuer::{IssuerConfig, IssuerError, IssuerKind},
    keys::FetchJwks,
    signers::{KeyRing, SignedClaims, Signers, Unverified},
    workload::{Workload, WorkloadError},
    workloads::{Proven, Unproven, Workloads},
};
use crate::id::{AgentName, ChainId, Subject};

/// Who asks, as believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Tenant, role and user, as policy sees them.
    pub subject: Subject,
    /// The software that asks: the `agent` member, or `sub` of a signed identity.
    pub agent: Option<AgentName>,
    /// Who acts for whom, from the `act` claims (RFC 8693 §4.1): the current actor first, then the one that
    /// delegated to it, and so on. Empty unless signed.
    pub delegation: Vec<String>,
    /// The run that this action belongs to.
    pub chain: Option<ChainId>,
}

/// Why a request is not let in. No message repeats what the client sent beyond names and single characters,
/// so none can carry a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No claim, and no default: `identity_required`.
    #[error(
        "this request names no identity: send Agent-Identity: tenant=\"...\", role=\"...\", or put tenant%2Frole \
         in the user name of the proxy URL (a JWT where the proxy asks for a signed identity)"
    )]
    Required,
    /// A claim that cannot be read or believed: `identity_invalid`. The text says what to do.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The named header is there twice: `bad_request`, whatever the two say.
    #[error("the {0} header is there twice: send it once")]
    Duplicate(&'static str),
    /// No binding lets this workload speak for this subject: `identity_not_allowed`.
    #[error("no binding lets workload {workload} speak for {}", Spoken(.subject))]
    NotAllowed {
        /// Who is connected.
        workload: Workload,
        /// For whom it spoke.
        subject: Subject,
    },
    /// The chain began under another tenant or user: `identity_drift`.
    #[error("chain {chain} belongs to {pinned}: use another chain for another tenant or user")]
    Drift {
        /// The chain that was named.
        chain: ChainId,
        /// Whose it is.
        pinned: Pinned,
    },
    /// The keys that signed identities are checked against cannot be had now. Nothing is wrong with the
    /// request; the reason is in the proxy's log.
    #[error("the keys that identities are checked against cannot be had: try again in a minute")]
    Unavailable,
}

impl Error {
    fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(reason.into())
    }
}

impl From<crate::id::NameError> for Error {
    fn from(error: crate::id::NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// `tenant acme, role researcher, user alice`.
struct Spoken<'a>(&'a Subject);

impl std::fmt::Display for Spoken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tenant {}, role {}", self.0.tenant, self.0.role)?;
        self.0.user.as_ref().map_or(Ok(()), |user| write!(f, ", user {user}"))
    }
}
