//! What can be asked of a provider's authorization server.

use std::sync::Arc;

use super::{App, Failure, NotSent, Provider, RawAnswer, Transport, Values, answer::Introspection};
use crate::secret::Secret;

/// A provider's authorization server, for one account: its URLs are filled and the app is known.
///
/// Each call makes exactly one request; nothing is ever repeated, and no redirect is followed.
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    #[expect(dead_code, reason = "STILL EMPTY")]
    transport: Transport,
    provider: Arc<Provider>,
    #[expect(dead_code, reason = "STILL EMPTY")]
    app: Arc<App>,
}

/// Which kind of token is to be revoked (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// An access token.
    AccessToken,
    /// A refresh token.
    RefreshToken,
}

/// A token for another one (RFC 8693 §2.1).
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Whom the new token is about.
    pub subject: TypedToken,
    /// Who acts for them.
    pub actor: Option<TypedToken>,
    /// Where the new one is for.
    pub audience: Option<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
}

/// A token and what it is, as a URN of RFC 8693 §3.
#[derive(Debug, Clone)]
pub struct TypedToken {
    /// The token.
    pub token: Secret,
    /// Such as `urn:ietf:params:oauth:token-type:jwt`.
    pub r#type: String,
}

/// What an installation token of a GitHub App is narrowed to; all that the installation has, where left empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Names of repositories.
    pub repositories: Vec<String>,
    /// Permissions, as in `contents: read`.
    pub permissions: Vec<(String, String)>,
}

#[expect(clippy::unused_async, reason = "STILL EMPTY")]
impl TokenEndpoint {
    /// The endpoint for an account whose metadata is `values`.
    ///
    /// # Errors
    /// [`Failure::NotSent`] where the metadata does not fill the URLs.
    pub fn new(
        transport: &Transport,
        provider: &Arc<Provider>,
        app: &Arc<App>,
        _values: Values<'_>,
    ) -> Result<Self, Failure> {
        Ok(Self { transport: transport.clone(), provider: Arc::clone(provider), app: Arc::clone(app) })
    }

    /// The provider.
    #[must_use]
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// A code for tokens (RFC 6749 §4.1.3), with the PKCE verifier where there was a challenge.
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer.
    pub async fn exchange_code(
        &self,
        _code: &Secret,
        _verifier: Option<&Secret>,
        _redirect_url: &str,
    ) -> Result<RawAnswer, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// A refresh token for tokens (RFC 6749 §6). `scopes` are sent only where the dialect wants them again.
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer.
    pub async fn refresh(&self, _refresh_token: &Secret, _scopes: &[String]) -> Result<RawAnswer, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// The app's own token (RFC 6749 §4.4).
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer.
    pub async fn client_credentials(&self, _scopes: &[String]) -> Result<RawAnswer, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// An assertion for a token (RFC 7523 §2.1).
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer.
    pub async fn jwt_bearer(&self, _assertion: &Secret, _scopes: &[String]) -> Result<RawAnswer, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// A token for another one (RFC 8693), or on behalf of a user (Entra).
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer.
    pub async fn token_exchange(&self, _exchange: &Exchange) -> Result<RawAnswer, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// A token of a GitHub App's installation. The provider's `token_url` is
    /// `https://api.github.com/app/installations/{installation}/access_tokens`, and the app signs with its key.
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer.
    pub async fn installation_token(&self, _narrowed: &Narrowed) -> Result<RawAnswer, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// Revokes a token. One that the provider does not know is revoked (RFC 7009 §2.2). `Ok(false)`: it has no way to.
    ///
    /// # Errors
    /// [`Failure`]: it may still be valid.
    pub async fn revoke(&self, _token: &Secret, _hint: Hint) -> Result<bool, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }

    /// Asks about an access token (RFC 7662).
    ///
    /// # Errors
    /// [`Failure`]: nothing is known.
    pub async fn introspect(&self, _token: &Secret) -> Result<Introspection, Failure> {
        Err(Failure::NotSent(NotSent::Connect)) // STILL EMPTY
    }
}
