//! What it means that there are no tokens. Never a body, a token, or a provider's own text.

use std::time::Duration;

use serde::Deserialize;

use super::template::FillError;
use crate::cause::Cause;

/// Why there are no tokens: a variant per different reaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent: the same request may be made again.
    #[error("nothing was sent: {0}")]
    NotSent(NotSent),
    /// It was sent, and nobody knows whether it was carried out: no complete answer, or a gateway's.
    #[error("sent, and no answer says whether it was carried out")]
    Ambiguous,
    /// Not now: an error of the server's, too many requests, or an answer that means nothing.
    #[error("refused for now")]
    Transient {
        /// How long to wait, where the answer says so.
        retry_after: Option<Duration>,
    },
    /// Never again with this grant.
    #[error("refused for good: {0}")]
    Definitive(Cause),
    /// A person must do something; the refresh token may work again after that.
    #[error("a person must sign in again")]
    NeedsUser {
        /// Why.
        cause: Cause,
        /// What the person's sign-in must fulfil, as the provider says it (OpenID Connect `claims`).
        claims: Option<String>,
    },
    /// There is no such user, installation or workspace any more.
    #[error("the account is gone at the provider: {0}")]
    SubjectGone(Cause),
    /// The app's fault, not the account's: every account of this app fails alike.
    #[error("the app is refused: {0}")]
    App(AppFault),
    /// A success that cannot be read: the raw answer is what may hold the only token.
    #[error("the answer cannot be read: {0}")]
    Unreadable(Unreadable),
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The name has no address, or no address answered.
    #[error("cannot connect to the token endpoint")]
    Connect,
    /// Every address is one that must not be dialled.
    #[error("the token endpoint's address must not be dialled; see egress.allow_addresses")]
    Address,
    /// The handshake failed, for instance over the certificate.
    #[error("cannot agree on TLS with the token endpoint")]
    Tls,
    /// No connection within the limit.
    #[error("no connection to the token endpoint within the limit")]
    Timeout,
    /// The account's metadata does not fill the URL or a parameter.
    #[error("{0}")]
    Metadata(#[from] FillError),
    /// The connector has no URL for this.
    #[error("the connector has no {0}")]
    NoUrl(&'static str),
    /// An assertion could not be signed, or the app has no key for one.
    #[error("an assertion cannot be signed: {0}")]
    Unsigned(&'static str),
    /// The request cannot be put together, for instance with a secret that no header can carry.
    #[error("the request cannot be put together")]
    Request,
}

/// What is wrong with an app, or with what its connector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AppFault {
    /// `invalid_client`: a wrong or expired secret. Pause the app.
    #[error("its client id or secret is wrong or has expired (oauth.apps)")]
    Credentials,
    /// `unauthorized_client`: the app may not use this grant. Pause the app.
    #[error("it may not use this grant at the provider")]
    Forbidden,
    /// `invalid_request`, `invalid_scope` and the like: the connector's dialect asks for what the provider has not.
    #[error("the provider does not understand the request; check the connector's auth and dialect")]
    Request,
    /// A redirect, which is not followed.
    #[error("the token endpoint redirects; write its final URL in the connector")]
    Redirect,
    /// Nothing is at the URL.
    #[error("there is no token endpoint at the connector's URL")]
    NoEndpoint,
}

/// What is wrong with a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreadable {
    /// Longer than we take. The raw answer is not there.
    #[error("it is longer than {} bytes", super::ANSWER_BYTES)]
    TooLong,
    /// Neither JSON nor a form.
    #[error("it is neither JSON nor a form")]
    Syntax,
    /// There is no access token where the dialect says.
    #[error("it has no access token where the connector's dialect says (token_at)")]
    NoToken,
}

/// What an error code of a provider's means, as a connector's `dialect.errors` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// [`Cause::Revoked`], definitive.
    Revoked,
    /// [`Cause::ExpiredIdle`], definitive.
    ExpiredIdle,
    /// [`Cause::ExpiredHard`], definitive.
    ExpiredHard,
    /// [`Cause::WrongClient`], definitive.
    WrongClient,
    /// A person must act: [`Cause::Policy`].
    NeedsUser,
    /// The subject is gone: [`Cause::UserDisabled`].
    UserDisabled,
    /// The subject is gone: [`Cause::Uninstalled`].
    Uninstalled,
    /// [`AppFault::Credentials`].
    App,
    /// [`AppFault::Request`].
    Request,
    /// Not now.
    Transient,
}
