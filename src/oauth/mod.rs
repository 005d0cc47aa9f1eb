//! OAuth 2.0 and what providers make of it: the protocol, and nothing else.
//!
//! It knows no account, no policy and no request of an agent's. A [`Provider`] is data (`spec.auth` of a connector);
//! its [`Dialect`] says where it departs from the standards. A [`TokenEndpoint`] makes one request and gives the
//! [`RawAnswer`], which is to be put away before it is read: reading turns the dialect into what RFC 6749 says, that
//! is [`Tokens`] or a [`Failure`]. Neither holds a provider's own words.

mod answer;
mod app;
mod assertion;
mod consent;
mod dialect;
mod endpoint;
mod failure;
mod key;
mod life;
mod parsed;
mod request;
mod sts;
mod template;
#[cfg(test)]
mod tests;
mod transport;
mod verdict;

use serde::{Deserialize, Serialize};

pub use self::{
    answer::{Grant, HostRefused, Introspection, RawAnswer, Tokens},
    app::{App, AppConfig, Apps, ClientAuth, Config, ConfigError, SecretSource},
    assertion::Asserter,
    consent::{Ask, Callback, CallbackError, Consented, Pending},
    dialect::{
        AssertedScopes, AssertionStyle, At, BodyStyle, ClientAuthStyle, Dialect, ExchangeStyle, Expiry,
        Header, LONGEST_LIFE, Pattern, Reach, Revocation, Rotates, Rotation, SHORTEST_LIFE, Span, Success,
    },
    endpoint::{Exchange, Hint, Narrowed, TokenEndpoint, TypedToken},
    failure::{AppFault, Failure, Meaning, NotSent, Unreadable},
    key::SigningKey,
    sts::{AwsKeys, WebIdentity},
    template::{FillError, TextTemplate, UrlTemplate, Values},
    transport::{Clock, Transport},
};

/// The longest answer that is taken, in bytes.
pub const ANSWER_BYTES: usize = 1 << 20;

/// A provider's authorization server, as a connector describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provider {
    /// Where a person consents.
    pub authorize_url: Option<UrlTemplate>,
    /// Where tokens are obtained and refreshed.
    pub token_url: Option<UrlTemplate>,
    /// Where they are revoked.
    pub revoke_url: Option<UrlTemplate>,
    /// Proof key for code exchange (RFC 7636); `None` where the provider has none.
    pub pkce: Option<Pkce>,
    /// Where it departs from the standards.
    pub dialect: Dialect,
}

/// How the code challenge is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pkce {
    /// SHA-256.
    S256,
    /// The verifier itself.
    #[serde(rename = "plain")]
    Plain,
}
