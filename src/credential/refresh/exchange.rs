//! The way to an account's authorization server.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{
    oauth::{App, Failure, Hint, Introspection, Provider, RawAnswer, TokenEndpoint, Transport},
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
