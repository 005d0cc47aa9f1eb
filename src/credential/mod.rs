//! From a permit to a credential that can be injected.
//!
//! [`Resolver::resolve`] takes a [`Permit`] and gives the [`Credential`] of the permit's account and no other.
//! A credential has no public constructor: without a permit there is none (law 2). On a request nothing is
//! decrypted and no lock is taken: accounts are opened once and kept as ready-made, sensitive header values.

mod cache;
mod found;
mod local;
mod needles;
mod refresh;
mod remote;
mod render;
mod resolver;
mod seed;
mod shards;
mod sigv4;
mod source;
mod survey;
pub mod wire;

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::sync::CancellationToken;

pub use self::{
    local::Local,
    needles::Needles,
    refresh::{
        Clock, Closed, Config, Connectors, Engine, Exchange, Metrics, Needs, Parts, Server, Token, Trouble,
    },
    remote::{Error as BrokerError, Metrics as BrokerMetrics, Parts as BrokerParts, Remote},
    resolver::Resolver,
    seed::{Ask, SeedError, check_seed, parse_seed, seed_form},
    sigv4::{Signer, Unsignable, Unsigned, payload_hash},
    survey::Survey,
};
use crate::{
    catalog::{AuthType, MissingField},
    host::Target,
    id::{AccountKey, Principal, Scope, Subject},
    policy::Permit,
    secret::Secret,
};

/// What a name in a query may keep (RFC 3986 §2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One account's credential, ready to be put into requests to its connector.
///
/// There is one per account and it is shared by all its requests, so dropping the account from the vault
/// drops it here too; [`Credential::ended`] tells streams that are still open.
pub struct Credential {
    label: Option<Arc<str>>,
    generation: Option<u64>,
    authorization: Option<Arc<str>>,
    /// When the token was obtained: tells one token of an account from the next.
    obtained: Option<Timestamp>,
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Vec<(String, Secret)>,
    signer: Option<Signer>,
    target: Option<Target>,
    needles: Arc<Needles>,
    ended: Arc<CancellationToken>,
}

impl Credential {
    /// Puts the credential into a request head and its query. Whatever had the same header name is replaced.
    ///
    /// Returns the query to send.
    #[must_use]
    pub fn inject(&self, headers: &mut HeaderMap, query: Option<String>) -> Option<String> {
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if self.query.is_empty() {
            return query;
        }
        let mut query = query.unwrap_or_default();
        for (name, value) in &self.query {
            if !query.is_empty() {
                query.push('&');
            }
            query.extend(utf8_percent_encode(name, QUERY));
            query.push('=');
            #[expect(clippy::disallowed_methods, reason = "this is where a query credential is injected")]
            query.extend(percent_encoding::percent_encode(value.expose(), QUERY));
        }
        Some(query)
    }

    /// What signs requests, where the credential is not put into them.
    #[must_use]
    pub const fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// The account it belongs to, as text: `acme/salesforce/role:researcher`. None where the connector needs none.
    #[must_use]
    pub const fn label(&self) -> Option<&Arc<str>> {
        self.label.as_ref()
    }

    /// Which generation of the account's secret this is.
    #[must_use]
    pub const fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Whether it is a token that is replaced without a person's help.
    #[must_use]
    pub const fn is_renewed(&self) -> bool {
        self.obtained.is_some()
    }

    /// Whether another one may take its place in a request that was made with it: its token is replaced by itself,
    /// stands in headers only, and signs nothing.
    #[must_use]
    pub const fn is_replaceable(&self) -> bool {
        self.is_renewed() && self.query.is_empty() && self.signer.is_none()
    }

    /// The id of the event that recorded the consent or the adding of the account.
    #[must_use]
    pub const fn authorization(&self) -> Option<&Arc<str>> {
        self.authorization.as_ref()
    }

    /// Where requests go that name the connector and not a host: what the account's metadata says.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// What it could look like when a provider echoes it.
    #[must_use]
    pub const fn needles(&self) -> &Arc<Needles> {
        &self.needles
    }

    /// Cancelled when the account is frozen, revoked or removed.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody connected this account.
    #[error("no {} account of tenant {} is connected as {}", .0.connector, .0.tenant, .0.principal)]
    Missing(AccountKey),
    /// An operator or the identity provider froze it.
    #[error("the account is frozen")]
    Frozen {
        /// Who froze it.
        by: String,
    },
    /// It was revoked.
    #[error("the account's authorization was revoked")]
    Revoked(AccountKey),
    /// Its authorization works no longer, and no attempt of ours changes that.
    #[error("the account {account} needs a person: {}", .closed.cause().as_str())]
    Closed {
        /// Whose account it is.
        account: AccountKey,
        /// What was the matter, and what helps.
        closed: Closed,
    },
    /// Its token has ended, and there is no other at present.
    #[error("{host} gives no token: {trouble}")]
    NoToken {
        /// The token endpoint's host.
        host: String,
        /// Why.
        trouble: Trouble,
    },
    /// The account holds fewer scopes than the operation needs.
    #[error("the account lacks scopes")]
    Scopes {
        /// Whose account it is.
        account: AccountKey,
        /// What the operation needs.
        required: Vec<Scope>,
        /// What the account has.
        granted: BTreeSet<Scope>,
    },
    /// The request's host is not the one that the account's metadata names.
    #[error("the host is not the account's: its {name} is {}", .expected.as_deref().unwrap_or("not set"))]
    Host {
        /// The name in braces of the connector's host pattern.
        name: String,
        /// What the account's metadata says.
        expected: Option<String>,
    },
    /// The account does not have what the connector injects.
    #[error(transparent)]
    Field(#[from] MissingField),
    /// The account holds something else than what its connector's tokens are minted from.
    #[error("the account does not hold what its connector's tokens are minted from; rotate it with {}", seed_form(*.0))]
    Unminted(AuthType),
    /// A field has bytes that a header cannot have.
    #[error("the account's secret cannot stand in the header {0}; rotate it")]
    Unwritable(HeaderName),
    /// The vault could not be read.
    #[error("the vault cannot be read")]
    Vault(#[from] crate::vault::Error),
    /// The broker gave nothing.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker's rules do not let this process have the account for this subject.
    #[error("the broker gives this workload no account for role {} in tenant {}", .0.role, .0.tenant)]
    NotAllowed(Subject),
}

/// The principal as the agent is told it.
#[must_use]
pub fn principal_kind(principal: &Principal) -> &'static str {
    match principal {
        Principal::Developer => "developer",
        Principal::Tenant => "tenant",
        Principal::Role(_) => "role",
        Principal::User { .. } => "user",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(query: Vec<(String, Secret)>, signer: Option<Signer>) -> Credential {
        Credential {
            label: None,
            generation: Some(1),
            authorization: None,
            obtained: Some(Timestamp::UNIX_EPOCH),
            headers: Vec::new(),
            query,
            signer,
            target: None,
            needles: Arc::new(Needles::new([])),
            ended: Arc::default(),
        }
    }

    /// What another one would not replace: the query is in the URL, and a signature covers the whole request.
    #[test]
    fn a_token_is_replaced_in_a_request_only_where_it_stands_in_headers() {
        let secret = |text: &str| Secret::new(text.into());
        let keys =
            ["access_key_id", "secret_access_key"].map(|name| (name.to_owned(), secret("kb-canary-k")));
        let signer = Signer::new(&keys.into()).unwrap();
        assert!(token(vec![], None).is_replaceable());
        assert!(!token(vec![("key".to_owned(), secret("kb-canary-q"))], None).is_replaceable());
        assert!(!token(vec![], Some(signer)).is_replaceable());
        assert!(!Credential { obtained: None, ..token(vec![], None) }.is_replaceable());
    }
}
