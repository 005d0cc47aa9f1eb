//! The way to an account's authorization server.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::Token;
use crate::{
    credential::seed::Ask,
    oauth::{
        App, AwsKeys, Failure, Hint, Introspection, NotSent, Provider, RawAnswer, TokenEndpoint, Tokens,
        Transport,
    },
    secret::Secret,
};

/// One account's authorization server, and who asks it.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// The provider.
    pub provider: &'a Arc<Provider>,
    /// The app of ours to which the account was consented.
    pub app: &'a Arc<App>,
    /// What fills the placeholders of the provider's URLs.
    pub metadata: &'a BTreeMap<String, String>,
}

/// Asks authorization servers. Each call is exactly one request, and ends within the time that it was made with.
#[async_trait]
pub trait Exchange: Send + Sync {
    /// A refresh token for tokens.
    async fn refresh(
        &self,
        server: Server<'_>,
        token: &Secret,
        scopes: &[String],
    ) -> Result<RawAnswer, Failure>;

    /// A token, for what an account holds.
    async fn mint(&self, server: Server<'_>, ask: &Ask) -> Result<Token, Failure>;

    /// When an access token ends, and more.
    async fn introspect(&self, server: Server<'_>, token: &Secret) -> Result<Introspection, Failure>;

    /// Ends a token. `Ok(false)`: the provider has no way to.
    async fn revoke(&self, server: Server<'_>, token: &Secret, hint: Hint) -> Result<bool, Failure>;
}

#[async_trait]
impl Exchange for Transport {
    async fn refresh(
        &self,
        server: Server<'_>,
        token: &Secret,
        scopes: &[String],
    ) -> Result<RawAnswer, Failure> {
        self.endpoint(server)?.refresh(token, scopes).await
    }

    async fn mint(&self, server: Server<'_>, ask: &Ask) -> Result<Token, Failure> {
        let endpoint = || self.endpoint(server);
        let answer = match ask {
            Ask::ClientCredentials { scopes } => endpoint()?.client_credentials(scopes).await?,
            Ask::JwtBearer { asserter, scopes } => {
                let endpoint = endpoint()?;
                endpoint.jwt_bearer(&endpoint.assert(asserter, scopes)?, scopes).await?
            }
            Ask::TokenExchange(exchange) => endpoint()?.token_exchange(exchange).await?,
            Ask::Installation(narrowed) => endpoint()?.installation_token(narrowed).await?,
            Ask::WebIdentity(identity) => {
                let url = server.provider.token_url.as_ref().ok_or(NotSent::NoUrl("token_url"))?;
                let value = |name: &str| server.metadata.get(name).map(String::as_str);
                return self.assume_role(url, &value, identity).await.map(Token::from);
            }
        };
        answer.read(&server.provider.dialect).map(Token::from)
    }

    async fn introspect(&self, server: Server<'_>, token: &Secret) -> Result<Introspection, Failure> {
        self.endpoint(server)?.introspect(token).await
    }

    async fn revoke(&self, server: Server<'_>, token: &Secret, hint: Hint) -> Result<bool, Failure> {
        self.endpoint(server)?.revoke(token, hint).await
    }
}

/// What a transport is to a server.
trait Reach {
    fn endpoint(&self, server: Server<'_>) -> Result<TokenEndpoint, Failure>;
}

impl Reach for Transport {
    fn endpoint(&self, server: Server<'_>) -> Result<TokenEndpoint, Failure> {
        let Server { provider, app, metadata } = server;
        TokenEndpoint::new(self, provider, app, &|name| metadata.get(name).map(String::as_str))
    }
}

impl From<Tokens> for Token {
    fn from(tokens: Tokens) -> Self {
        let Tokens { access, obtained, expires, scopes, .. } = tokens;
        Self { fields: [("token".to_owned(), access)].into(), obtained, expires, scopes }
    }
}

impl From<AwsKeys> for Token {
    fn from(keys: AwsKeys) -> Self {
        let AwsKeys { access_key_id, secret_access_key, session_token, obtained, expires } = keys;
        let fields = [
            ("access_key_id", access_key_id),
            ("secret_access_key", secret_access_key),
            ("session_token", session_token),
        ];
        let fields = fields.map(|(name, secret)| (name.to_owned(), secret)).into();
        Self { fields, obtained, expires, scopes: None }
    }
}
