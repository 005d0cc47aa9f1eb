//! What a token endpoint answered: first as it came, to be put away sealed, then read.

use jiff::Timestamp;

use super::{Dialect, Failure};
use crate::{host::Target, secret::Secret};

/// Tokens, as a provider's answer gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The access token.
    pub access: Secret,
    /// Another refresh token. Where there is none, keep the old one (RFC 6749 §6).
    pub refresh: Option<Secret>,
    /// When the answer came: what the other times are counted from.
    pub obtained: Timestamp,
    /// When the access token ends, by our clock; `None` where nobody says.
    pub expires: Option<Timestamp>,
    /// When the refresh token ends, where the answer says so.
    pub refresh_expires: Option<Timestamp>,
    /// The provider's scopes that it has; `None`: those that were asked for (RFC 6749 §5.1).
    pub scopes: Option<Vec<String>>,
    /// The host to use from then on, where the dialect has one (`host_from`). One that is not allowed is an error of
    /// its own, so that the tokens are not lost over it: keep the host that there was.
    pub host: Result<Option<Target>, HostRefused>,
    /// Whose account it is, where the dialect says how to find out (`subject_from`).
    pub subject: Option<String>,
    /// The `nonce` of the ID token, where there is one (OpenID Connect).
    pub nonce: Option<String>,
}

/// The answer names a host that `host_must_match` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider names a host for this account that the connector's host_must_match does not allow")]
pub struct HostRefused;

/// What introspection says of a token (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// Whether it works.
    pub active: bool,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// The provider's scopes that it has.
    pub scopes: Option<Vec<String>>,
    /// Whose it is (`sub`, or else `username`).
    pub subject: Option<String>,
}

/// What was asked for. It decides how an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// An authorization code's.
    Code,
    /// A refresh token's.
    Refresh,
    /// Client credentials, an assertion, another token: made anew each time.
    Mint,
    /// A GitHub App's installation token.
    Installation,
}

/// An answer as it came, whatever it says. Put [`RawAnswer::to_secret`] away, sealed, before it is read: it may hold the
/// only token there is.
#[expect(dead_code, reason = "STILL EMPTY")]
pub struct RawAnswer {
    pub(super) grant: Grant,
    pub(super) status: u16,
    pub(super) received: Timestamp,
    pub(super) date: Option<Timestamp>,
    pub(super) retry_after: Option<std::time::Duration>,
    pub(super) body: Secret,
}

impl RawAnswer {
    /// Whether the status says success, so that the body may hold tokens.
    #[must_use]
    pub fn may_hold_tokens(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// All of it in one piece, for the vault's quarantine.
    #[must_use]
    pub fn to_secret(&self) -> Secret {
        self.body.clone() // STILL EMPTY
    }

    /// What [`RawAnswer::to_secret`] put away.
    #[must_use]
    pub fn from_secret(_secret: &Secret) -> Option<Self> {
        None // STILL EMPTY
    }

    /// The tokens.
    ///
    /// # Errors
    /// [`Failure`]; [`Failure::Unreadable`] where it is a success that the dialect does not understand.
    pub fn read(&self, _dialect: &Dialect) -> Result<Tokens, Failure> {
        Err(Failure::Ambiguous) // STILL EMPTY
    }
}
